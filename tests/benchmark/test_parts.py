"""Every part of the benchmark runs, and does what the package does.

Shapes and names
----------------
part     a call and the operations of its convolutions and products.
forward  operations of each layer on one image of 96 x 128 pixels, or on one RoI.
"""

from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console

from keras_frcnn.benchmark import report, training
from keras_frcnn.benchmark.setting import Setting, random_batch, random_model
from keras_frcnn.benchmark.testing import ALL, parts_of_testing
from keras_frcnn.benchmark.training import PARTS, parts_of_training
from keras_frcnn.cli import benchmark as command
from keras_frcnn.system.timing import Timing

SMALL = Setting("tiny", 96, 128, 20)


@pytest.fixture(scope="module")
def model():
    return random_model(SMALL, "float32")


def test_the_parts_of_testing_run_and_their_operations_are_counted_by_hand(model):
    parts = parts_of_testing(model)
    assert tuple(parts) == ALL
    for part in parts.values():
        part.call()
    # fc6, fc7 and both outputs on 20 RoIs of 7 x 7 cells.
    channels, classes = model.backbone.channels, model.number_of_classes
    products = 49 * channels * 256 + 256 * 256 + 256 * 5 * classes
    assert parts["fc"].operations == 2 * 20 * products
    inner = [parts[name].operations for name in ("conv", "rpn", "fc")]
    assert parts["bare"].operations == sum(inner) == parts["whole"].operations
    assert parts["decode"].operations == parts["pooling"].operations == 0
    assert {part.images for part in parts.values()} == {1}


# Kernel times cells: 48 x 64, 24 x 32 and so on; the RPN's nine anchors; 21 classes.
BASE_FORWARD = [
    2 * 9 * 3 * 32 * (48 * 64),
    2 * 9 * 32 * 64 * (24 * 32),
    2 * 9 * 64 * 96 * (12 * 16),
    2 * 9 * 96 * 128 * (6 * 8),
    2 * 9 * 128 * 128 * (6 * 8),
]
RPN_FORWARD = [2 * 9 * 128 * 128 * 48, 2 * 128 * 18 * 48, 2 * 128 * 36 * 48]
ROI_FORWARD = [2 * 49 * 128 * 256, 2 * 256 * 256, 2 * 256 * 21, 2 * 256 * 84]


@pytest.mark.parametrize("frozen", [0, 2])
def test_the_operations_of_the_steps_by_hand(frozen, monkeypatch):
    model = random_model(SMALL, "float32")
    names = [name for i in range(1, frozen + 1) for name in (f"conv{i}", f"conv{i}_norm")]
    backbone = dataclasses.replace(model.backbone, frozen=tuple(names))
    monkeypatch.setattr(model, "backbone", backbone)
    # Forward, once more for the weights, once more for what is below the first trained layer.
    base = (
        sum(BASE_FORWARD[:frozen]) + 2 * BASE_FORWARD[frozen] + 3 * sum(BASE_FORWARD[frozen + 1 :])
    )
    rpn, roi = 3 * sum(RPN_FORWARD), 3 * sum(ROI_FORWARD)
    expected = {
        "stage1": base + rpn,
        "bare1": base + rpn,
        "stage2": 2 * base + 128 * roi,
        "bare2": 2 * base + 128 * roi,
        "stage3": rpn - RPN_FORWARD[0],
        "stage4": 128 * (roi - ROI_FORWARD[0]),
        "joint": base + rpn + 128 * roi,
    }
    parts = parts_of_training(model)
    assert {name: part.operations for name, part in parts.items()} == expected
    two = {name for name, part in parts.items() if part.images == 2}
    assert two == {"stage2", "bare2", "stage4"}
    assert {part.images for part in parts.values()} == {1, 2}


def test_the_steps_change_only_the_layers_of_their_stage(model, monkeypatch):
    monkeypatch.setattr(training, "RATE", 0.01)  # one that float32 weights notice

    def snapshot():
        groups = {
            "base": model.layers("base"),
            "rpn": model.layers("rpn"),
            "head": model.layers("head"),
        }
        return {
            name: np.concatenate([w.ravel() for layer in layers for w in layer.get_weights()])
            for name, layers in groups.items()
        }

    moved = {
        "stage1": {"base", "rpn"},
        "bare1": {"base", "rpn"},
        "stage2": {"base", "head"},
        "bare2": {"base", "head"},
        "stage3": {"rpn"},
        "stage4": {"head"},
        "joint": {"base", "rpn", "head"},
    }
    parts = parts_of_training(model)
    assert tuple(parts) == PARTS == tuple(moved)
    for name, part in parts.items():
        before = snapshot()
        assert np.isfinite(part.call()), name
        after = snapshot()
        changed = {group for group in before if not np.array_equal(before[group], after[group])}
        assert changed == moved[name], name


def test_proposals_of_the_batch_give_foreground_and_background():
    batch = random_batch(SMALL.recipe.image, 2)
    boxes = batch["proposals"].numpy()
    assert boxes.shape == (2, 2000, 4)
    assert (boxes[..., 2:] > boxes[..., :2]).all()
    assert boxes.min() >= 0
    gt = batch["gt_boxes"].numpy()
    assert (gt[..., 2:] <= np.array([96, 128])).all()


def measured(**seconds):
    timings = {key: Timing(np.array([value]), np.array([value])) for key, value in seconds.items()}
    return report.Measured(
        timings,
        {"float32/conv": 3_000_000_000},
        {"float32": 1e9, "bfloat16": 2e9},
        {},
        {key: 2 if key.endswith("stage2") else 1 for key in seconds},
    )


def test_ratios_by_hand():
    found = report.ratios(
        measured(
            **{
                "float32/whole": 10.0,
                "float32/bare": 8.0,
                "float32/conv": 6.0,
                "float32/proposals": 0.1,
                "float32/pooling": 0.2,
                "float32/detections": 0.3,
                "float32/stage1": 4.0,
                "float32/bare1": 3.2,
                "float32/stage3": 0.2,
                "float32/joint": 15.0,
                "bfloat16/whole": 5.0,
                "bfloat16/stage1": 2.0,
                "torchvision testing": 20.0,
            }
        )
    )
    assert found["testing / bare, float32"] == pytest.approx(1.25)
    assert found["stage 1 / bare, float32"] == pytest.approx(1.25)
    assert found["stage 3 / stage 1, float32"] == pytest.approx(0.05)
    assert found["joint / bare convolutions forward, float32"] == pytest.approx(2.5)
    share = found["proposals, pooling and detections / testing, float32"]
    assert share == pytest.approx(0.06)
    assert found["testing, bfloat16 / float32"] == pytest.approx(0.5)
    assert found["stage 1, bfloat16 / float32"] == pytest.approx(0.5)
    assert found["testing, float32 / torchvision"] == pytest.approx(0.5)
    assert found["testing, bfloat16 / torchvision"] == pytest.approx(0.25)
    assert not any("stage 2" in name for name in found)


def test_distance_to_the_limit():
    assert measured(**{"float32/conv": 6.0}).times_limit("float32/conv") == pytest.approx(2.0)
    assert measured(**{"float32/pooling": 6.0}).times_limit("float32/pooling") is None


def test_images_a_second_are_not_calls():
    found = measured(**{"float32/stage1": 4.0, "float32/stage2": 4.0})
    parts = report.record(found)["parts"]
    assert [parts[key]["images_per_second"] for key in parts] == [0.25, 0.5]
    assert [parts[key]["images"] for key in parts] == [1, 2]
    console = Console(width=120, record=True, file=io.StringIO())
    report.print_tables(found, console)
    rows = [line for line in console.export_text().splitlines() if "stage2" in line]
    assert "0.50" in rows[0]


def test_no_determinism_is_asked_for(monkeypatch):
    class Asked(Exception):
        pass

    def chosen(gpu, deterministic, *, jit=False):
        raise Asked(deterministic)

    monkeypatch.setattr("keras_frcnn.cli.common.choose_devices", chosen)
    with pytest.raises(Asked) as asked:
        command.main(["--network", "tiny"])
    assert asked.value.args == (False,)


def test_the_command_writes_everything(tmp_path, capsys):
    out = tmp_path / "b.json"
    command.main(
        "--network tiny --short_side 96 --long_side 128 --num_proposals 20 --repetitions 1 "
        f"--work testing --compressed --precision float32,bfloat16 --out {out}".split()
    )
    text = capsys.readouterr().out
    assert "bfloat16+compressed" in text
    assert "testing, bfloat16 / float32" in text
    record = json.loads(out.read_text())
    assert set(record["parts"]) >= {f"{kind}/{name}" for kind in ("float32",) for name in ALL}
    assert record["ratios"]["testing / bare, float32"] > 0
    assert record["parts"]["float32/conv"]["operations"] > 1e7
