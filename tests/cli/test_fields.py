"""Flags that are made from fields, and fields that are read from flags."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Literal

import pytest

from keras_frcnn.cli.common import in_flags
from keras_frcnn.cli.fields import add_fields, with_flags
from keras_frcnn.recipes import PAPER, AnchorConfig, DetectorConfig, RpnConfig
from keras_frcnn.system.settings import Count, Settings, Share, flagged, flags_of


@dataclasses.dataclass(frozen=True)
class Part(Settings):
    share: Share = flagged(0.5, "--share SHARE", "a share", "{} (section 9)")
    sides: tuple[Share, ...] = flagged((0.5, 1.0), "--sides S,S", "", "{} (ours)")
    is_on: bool = flagged(False, "--is_on", "switches", "off")
    kind: Literal["a", "b"] = flagged("a", "--kind KIND", "a kind", "{}")
    most: Count | None = flagged(None, "-m --at_most N", "a number", "all")
    unnamed: Count = 3


@dataclasses.dataclass(frozen=True)
class Whole(Settings):
    first: Part = Part()
    second: Part = Part(unnamed=4)


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_fields(parser, Part)
    return parser.parse_args(words)


def test_every_type_is_parsed_and_goes_into_every_part_that_has_the_field():
    given = parse(*["--share", "0.25", "--sides", "0.1,1", "--is_on", "--kind", "b", "-m", "7"])
    expected = {"share": 0.25, "sides": (0.1, 1.0), "is_on": True, "kind": "b", "most": 7}
    assert with_flags(Whole(), given) == Whole(Part(**expected), Part(**expected, unnamed=4))


def test_what_is_not_given_stays():
    whole = Whole(Part(share=0.1, is_on=True, most=2), Part(kind="b"))
    assert with_flags(whole, parse()) == whole


@pytest.mark.parametrize("words", ["--share 1.5", "--share x", "--kind c", "-m 0", "-m 1.5"])
def test_values_out_of_the_fields_range_are_refused(words):
    with pytest.raises(argparse.ArgumentError):
        parse(*words.split())


def test_the_help_has_the_default_with_its_source():
    actions = add_fields(argparse.ArgumentParser(), Part)
    assert {name: action.help for name, action in actions.items()} == {
        "share": "a share\ndefault: 0.5 (section 9)",
        "sides": "default: 0.5,1 (ours)",
        "is_on": "switches\ndefault: off",
        "kind": "a kind\ndefault: a",
        "most": "a number\ndefault: all",
    }


def test_some_fields_alone():
    chosen = add_fields(argparse.ArgumentParser(), DetectorConfig, "dropout", "rois_per_step")
    assert list(chosen) == ["dropout", "rois_per_step"]


def test_fields_of_the_recipe_are_told_as_flags():
    assert in_flags("`anchors.scales` and `rpn.positive_iou`") == (
        "--anchor_scales and --rpn_positive_iou"
    )
    names = dict(flags_of(PAPER))
    for prefix, kind in (("anchors", AnchorConfig), ("rpn", RpnConfig)):
        flags = {each.name: each.metadata.get("flag") for each in dataclasses.fields(kind)}
        for name, flag in flags.items():
            assert names.get(f"{prefix}.{name}") == flag
