"""Every part of the benchmark runs, and does what the package does.

Shapes and names
----------------
part  a call and the operations of its convolutions and products.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from keras_frcnn.benchmark import report, training
from keras_frcnn.benchmark.measure import Timing
from keras_frcnn.benchmark.setting import Setting, random_batch, random_model
from keras_frcnn.benchmark.testing import ALL, parts_of_testing
from keras_frcnn.benchmark.training import STAGES, parts_of_training
from keras_frcnn.cli import benchmark as command

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
    assert parts["fc"].operations == pytest.approx(2 * 20 * products, rel=0.01)
    inner = [parts[name].operations for name in ("conv", "rpn", "fc")]
    assert parts["bare"].operations == pytest.approx(sum(inner), rel=0.01)


def test_the_steps_change_only_the_layers_of_their_stage(model, monkeypatch):
    monkeypatch.setattr(training, "RATE", 0.01)  # one that float32 weights notice

    def snapshot():
        groups = {"base": model.base_layers, "rpn": model.rpn_layers, "head": model.head_layers}
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
    assert tuple(parts) == STAGES == tuple(moved)
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
        timings, {"float32/conv": 3_000_000_000}, {"float32": 1e9, "bfloat16": 2e9}, {}
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


def test_no_determinism_is_asked_for(monkeypatch):
    class Asked(Exception):
        pass

    def chosen(gpu, deterministic, *, jit=False):
        raise Asked(deterministic)

    monkeypatch.setattr(command, "choose_devices", chosen)
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
