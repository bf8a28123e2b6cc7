"""Flags: misspelt ones, kinds of values, flags of fields and fields of flags."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Literal

import pytest

from keras_frcnn.cli import flags
from keras_frcnn.cli.common import in_flags
from keras_frcnn.cli.flags import add_fields, with_flags
from keras_frcnn.cli.train_flags import build_parser
from keras_frcnn.errors import UserError
from keras_frcnn.recipes import PAPER, AnchorConfig, DetectorConfig, RpnConfig
from keras_frcnn.system.settings import Count, Settings, Share, flagged, flags_of


def refusal(action, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        action(*arguments)
    return str(caught.value)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--num_epoch", "--num_epochs"),
        ("--iteration=3", "--iterations"),
        ("--shortside", "--short_side"),
        ("--no_hf", "--no-hf"),
    ],
)
def test_a_misspelt_flag_names_the_nearest(typed, meant):
    message = refusal(build_parser().parse_args, ["-p", "data", typed, "2"])
    assert f"{typed!r}" in message
    assert message.endswith(f"Did you mean {meant}?")


def test_an_unknown_flag_without_a_near_one_points_to_the_help():
    message = refusal(build_parser().parse_args, ["-p", "data", "--xyzzy"])
    assert message.endswith("unknown argument '--xyzzy'. See --help.")


def test_flags_are_never_completed():
    # argparse would take --stage for --stages: a typing error that means something else.
    assert "--stages" in refusal(build_parser().parse_args, ["-p", "x", "--stage", "1"])


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "ten", "", "nan"])
def test_whole_number_refuses(text):
    with pytest.raises(argparse.ArgumentTypeError, match="a whole number from 1 up, not"):
        flags.whole_number(1)(text)


def test_whole_number_and_number_take_their_limits():
    assert flags.whole_number(1, 5)("5") == 5
    assert flags.number(0, 1)("0") == 0.0
    assert flags.number(0, 1)("1") == 1.0
    assert flags.number(0, above=True)("1e-9") == 1e-9


@pytest.mark.parametrize("text", ["nan", "inf", "-0.1", "1.01", "x"])
def test_number_refuses_what_is_not_finite_or_outside(text):
    with pytest.raises(argparse.ArgumentTypeError, match="a number from 0 to 1, not"):
        flags.number(0, 1)(text)


def test_number_above_refuses_the_limit_itself():
    with pytest.raises(argparse.ArgumentTypeError, match="a number above 0, not '0'"):
        flags.number(0, above=True)("0")


def test_numbers():
    assert flags.numbers("8, 16,32", float, "--anchor_scales") == (8.0, 16.0, 32.0)
    assert flags.numbers("1,2", int, "--stages", 2) == (1, 2)


@pytest.mark.parametrize(
    ("text", "kind", "count", "words"),
    [
        ("1,2", int, 4, "--flag takes 4 whole numbers separated by commas, not '1,2'"),
        ("1,,2", int, None, "whole numbers separated by commas"),
        ("1.5", int, None, "whole numbers separated by commas"),
        ("0,1", float, None, "--flag takes numbers above 0"),
        ("inf", float, None, "numbers above 0"),
        ("nan", float, None, "numbers above 0"),
        ("", float, None, "numbers separated by commas, not ''"),
    ],
)
def test_numbers_refuses(text, kind, count, words):
    assert words in refusal(flags.numbers, text, kind, "--flag", count)


def test_some_of_a_few_words():
    assert flags.some_of(("json", "voc"))("voc,json,voc") == ("voc", "json")
    assert flags.some_of(("json",), or_none=True)("none") == ()
    for text in ("none", "", "voc,x"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected json, voc, several with"):
            flags.some_of(("json", "voc"))(text)


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
