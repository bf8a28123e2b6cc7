"""TensorFlow starts without a word, and uses the devices that it is told."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from keras_frcnn.errors import UserError
from keras_frcnn.system import devices
from keras_frcnn.system.signals import signal_of, signals_raise

ROOT = Path(__file__).parents[2]


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("TF_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


# A batch is read as training reads it: with op determinism on, tf.data logs an "error" there.
READ_A_BATCH = """
from keras_frcnn.system.devices import choose_devices, quiet_tensorflow
quiet_tensorflow()
choose_devices("-1", deterministic=False)
import numpy as np
from keras_frcnn.data.pipeline import BATCH_SIGNATURE, batches
from keras_frcnn.recipes import ImageConfig
def record(index):
    empty = {
        name: np.zeros([size or 0 for size in spec.shape[1:]], spec.dtype.as_numpy_dtype)
        for name, spec in BATCH_SIGNATURE.items()
    }
    return {**empty, "image": np.zeros((4, 5, 3), np.uint8)}
print(len(list(batches(record, range(3), ImageConfig(8, 16), images_per_step=1))))
"""


@pytest.mark.slow
def test_tensorflow_starts_and_reads_data_without_a_word():
    done = python(READ_A_BATCH)
    assert (done.stdout, done.stderr) == ("3\n", "")


@pytest.mark.parametrize("fails", [True, False])
def test_what_is_held_back_is_shown_when_the_start_fails(capfd, monkeypatch, fails):
    def start():
        os.write(2, b"the reason\n")
        if fails:
            raise ImportError("no such library")
        return []

    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    monkeypatch.setattr(devices, "_start_tensorflow", start)
    monkeypatch.setattr(devices, "_NVIDIA_FILES", ())
    with pytest.raises(ImportError) if fails else nullcontext():
        devices.quiet_tensorflow()
    assert capfd.readouterr().err == ("the reason\n" if fails else "")
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_answered_when_tensorflow_is_there(number, capfd, monkeypatch):
    """Its imports take an exception for a library that is missing, and go on without it."""
    started = []

    def start():
        os.write(2, b"a note\n")
        signal.raise_signal(number)
        started.append(True)
        return []

    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    monkeypatch.setattr(devices, "_start_tensorflow", start)
    monkeypatch.setattr(devices, "_NVIDIA_FILES", ())
    with pytest.raises(KeyboardInterrupt) as stop, signals_raise():
        devices.quiet_tensorflow()
    assert signal_of(stop.value) == number
    assert started == [True]
    assert capfd.readouterr().err == ""


def test_of_a_device_that_is_not_found_it_is_said_why(capfd, monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    monkeypatch.setattr(
        devices, "_start_tensorflow", lambda: os.write(2, b"CUDA is old\nx\n") and []
    )
    monkeypatch.setattr(devices, "_NVIDIA_FILES", ("/dev/null",))
    devices.quiet_tensorflow()
    assert capfd.readouterr().err == "CUDA is old\n"


@pytest.mark.parametrize("text", ["7", "a", "0,99", "-2", "", "0.5"])
def test_a_gpu_that_is_not_there(text):
    with pytest.raises(UserError, match=re.escape(f"`gpu` {text} names a GPU that is not here")):
        devices.choose_devices(text, False)


@pytest.mark.parametrize("jit", [False, True])
def test_xla_compiles_where_it_is_asked_to(jit):
    done = python(
        "from keras_frcnn.system.devices import choose_devices\n"
        f"choose_devices('-1', False, jit={jit})\n"
        "import tensorflow as tf\n"
        "print(repr(tf.config.optimizer.get_jit()))"
    )
    assert done.stdout.split() == [repr("autoclustering" if jit else "")]
