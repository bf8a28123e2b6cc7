"""COCO's figures against pycocotools, and what becomes of difficult objects."""

import contextlib
import io
import json
import sys

import numpy as np
import pytest
from rich.console import Console

from keras_frcnn.detection.detections import ImageDetections
from keras_frcnn.detection.write_detections import coco_annotations, coco_results
from keras_frcnn.errors import UserError
from keras_frcnn.evaluation.coco import METRICS, evaluate_coco, print_coco

pytest.importorskip("faster_coco_eval", reason="faster-coco-eval is not installed")
BOX, FAR = (10, 10, 50, 50), (60, 60, 99, 99)


def by_pycocotools(data, found):
    """The 12 figures and AP of each class, by the original evaluator."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = json.loads(json.dumps(coco_annotations(data)))
        truth.createIndex()
        results = truth.loadRes(json.loads(json.dumps(list(coco_results(data, found)))))
        evaluator = COCOeval(truth, results, "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    precision = evaluator.eval["precision"][:, :, :, 0, -1]
    per_class = []
    for index in range(precision.shape[2]):
        known = precision[:, :, index][precision[:, :, index] > -1]
        per_class.append(known.mean() if known.size else None)
    return evaluator.stats, per_class


def random_case(make_dataset, seed, classes=3):
    rng = np.random.default_rng(seed)
    listed, near = [], []
    for _ in range(40):
        count = rng.integers(0, 6)
        corner = rng.uniform(0, 300, (count, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(8, 200, (count, 2))], axis=1)
        of_class = rng.integers(1, classes + 1, count)
        hard = rng.random(count) < 0.25
        listed.append(list(zip(boxes.tolist(), of_class.tolist(), hard.tolist(), strict=True)))
        near.append((boxes, of_class))
    # Ids of VOC2012: numbers beyond 31 bits are a matter of the library.
    ids = [f"2008_{index:06d}" for index in range(40)]
    names = (*(f"class {k}" for k in range(classes)), "never seen")
    data = make_dataset(*listed, class_names=names, ids=ids, size=(600, 600))
    found = {}
    for example, (boxes, of_class) in zip(data.examples, near, strict=True):
        if not len(boxes):
            continue
        which = rng.integers(0, len(boxes), 30)
        moved = boxes[which] + rng.normal(0, 8, (30, 4))
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        guess = np.where(rng.random(30) < 0.7, of_class[which], rng.integers(1, classes + 1, 30))
        found[example.key] = ImageDetections(
            moved.astype(np.float32), rng.random(30).astype(np.float32), guess.astype(np.int32)
        )
    return data, found


@pytest.mark.parametrize("seed", range(3))
def test_equal_to_pycocotools(make_dataset, seed):
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    data, found = random_case(make_dataset, seed)
    result = evaluate_coco(data, found)
    stats, per_class = by_pycocotools(data, found)
    assert [*result.metrics.values()] == pytest.approx(stats.tolist(), abs=1e-9)
    assert [*result.per_class.values()] == [
        None if value is None else pytest.approx(value, abs=1e-9) for value in per_class
    ]
    assert result.per_class["never seen"] is None
    assert 0.05 < result.metrics["ap"] < 0.95


def test_by_hand(make_dataset, make_detections):
    # IoU 0.75 with the one object: true at 0.5 to 0.75, six of the ten thresholds.
    data = make_dataset([(BOX, 1, False)], class_names=("cat", "dog"))
    result = evaluate_coco(data, make_detections((0, (10, 10, 50, 40), 0.9)))
    assert result.metrics["ap"] == pytest.approx(0.6)
    assert (result.metrics["ap50"], result.metrics["ap75"]) == (1.0, 1.0)
    # 1,600 square pixels are medium.
    assert result.metrics["ap_medium"] == pytest.approx(0.6)
    assert (result.metrics["ap_small"], result.metrics["ap_large"]) == (None, None)
    assert result.metrics["ar_1"] == pytest.approx(0.6)
    assert result.per_class == {"cat": pytest.approx(0.6), "dog": None}


def test_difficult_objects_are_neither_missed_nor_false(make_dataset, make_detections):
    data = make_dataset([(BOX, 1, True), (FAR, 1, False)], [(BOX, 1, True)])
    found = make_detections((0, BOX, 0.9), (0, FAR, 0.8))
    result = evaluate_coco(data, found)
    assert (result.metrics["ap"], result.metrics["ar_100"], result.difficult) == (1.0, 1.0, 2)
    # As the rule says: the second detection of a difficult object is false, unlike in VOC.
    twice = make_detections((0, BOX, 0.9), (0, BOX, 0.85), (0, FAR, 0.8))
    assert evaluate_coco(data, twice).metrics["ap"] == pytest.approx(0.5)
    assert "2 difficult objects" in result.difficult_rule
    assert "second detection" in result.to_json()["difficult_rule"]


def test_no_detections(make_dataset):
    result = evaluate_coco(make_dataset([(BOX, 1, False)]), {})
    assert result.metrics["ap"] == 0.0
    assert evaluate_coco(make_dataset([]), {}).metrics["ap"] is None


def test_the_table(make_dataset, make_detections):
    data = make_dataset([(BOX, 1, False), (FAR, 1, True)])
    console = Console(file=io.StringIO(), width=100)
    print_coco(evaluate_coco(data, make_detections((0, BOX, 0.9))), console)
    text = console.file.getvalue()
    assert all(words in text for words in METRICS.values())
    assert "AP of cat" in text
    assert "1 difficult objects" in text
    assert json.dumps(evaluate_coco(data, {}).to_json(), allow_nan=False)


def test_without_the_package(make_dataset, monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(UserError, match="pip install .*paper"):
        evaluate_coco(make_dataset([]), {})
