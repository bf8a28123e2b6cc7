"""TensorBoard's events: every number of the records, and a disk that takes no more.

Shapes and names
----------------
record  of ``metrics.jsonl``.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from keras_frcnn.training.output import EventFile

RECORD = {"stage": 2, "iteration": 20, "loss": 0.5, "learning_rate": 0.001}


def test_every_number_of_a_record_is_there(tmp_path):
    said = []
    events = EventFile(tmp_path, SimpleNamespace(say=said.append))
    events.add(RECORD)
    events.add({**RECORD, "iteration": 40, "loss": 0.25})
    events.close()
    found = EventAccumulator(str(tmp_path)).Reload()
    assert set(found.Tags()["tensors"]) == {"stage2/loss", "stage2/learning_rate"}
    losses = found.Tensors("stage2/loss")
    assert [event.step for event in losses] == [20, 40]
    assert [float(tf.make_ndarray(event.tensor_proto)) for event in losses] == [0.5, 0.25]
    assert said == []


def test_joint_training_has_no_stage(tmp_path):
    events = EventFile(tmp_path, SimpleNamespace(say=[].append))
    events.add({**RECORD, "stage": 0})
    events.close()
    found = EventAccumulator(str(tmp_path)).Reload()
    assert set(found.Tags()["tensors"]) == {"joint/loss", "joint/learning_rate"}


def test_a_folder_that_cannot_be_made_is_told_once(tmp_path):
    (tmp_path / "run").write_text("a file")
    said = []
    events = EventFile(tmp_path / "run" / "tensorboard", SimpleNamespace(say=said.append))
    events.add(RECORD)
    events.close()
    assert len(said) == 1 and "end here: " in said[0]


@pytest.mark.parametrize("fails", ["as_default", "close"])
def test_a_full_disk_ends_the_events_and_not_the_training(fails, tmp_path):
    class FullDisk:
        def __init__(self, writer):
            self.writer = writer

        def __getattr__(self, name):
            if name == fails:
                text = "{{node Flush}} tensorboard/events: No space left on device\nnode of a graph"
                raise tf.errors.ResourceExhaustedError(None, None, text)
            return getattr(self.writer, name)

    said = []
    events = EventFile(tmp_path / "tensorboard", SimpleNamespace(say=said.append))
    events._writer = FullDisk(events._writer)
    for _ in range(3):
        events.add(RECORD)
    events.close()
    events.close()
    assert said == [
        f"TensorBoard's events in {tmp_path / 'tensorboard'} end here: tensorboard/events: "
        "No space left on device. All records are in metrics.jsonl."
    ]
