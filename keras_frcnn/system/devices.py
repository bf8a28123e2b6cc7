"""How TensorFlow starts, and the devices that it uses."""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
from pathlib import Path

from keras_frcnn.errors import UserError
from keras_frcnn.system.signals import held_back

# Any of them is there where an NVIDIA driver is: Linux, Linux, Windows' subsystem for Linux.
_NVIDIA_FILES = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg")


def quiet_tensorflow() -> None:
    """Starts TensorFlow and keeps its notes off the screen; call before it is imported elsewhere.

    Some notes are printed before TensorFlow looks at its log level, so what the process writes to
    stderr is held back while it starts; it is shown where the start fails. Without an NVIDIA device
    the lines that TensorFlow logs as errors are hidden too: a driver that is not there, attributes
    that its own optimizer does not know. True errors come as exceptions. With a device, what is
    logged about it is shown if TensorFlow does not find it. ``TF_CPP_MIN_LOG_LEVEL=0`` shows all.

    A signal is answered when TensorFlow is there: some of its imports would take the exception for
    a library that is missing, and go on.
    """
    with held_back():
        _start_quietly()


def _start_quietly() -> None:
    has_device = any(Path(file).exists() for file in _NVIDIA_FILES)
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if has_device else "3") in ("0", "1"):
        _start_tensorflow()
        return
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        shown_lines = ""  # a pattern: all of them
        try:
            gpus = _start_tensorflow()
            shown_lines = "(?i)gpu|cuda" if has_device and not gpus else "(?!)"
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            file.seek(0)
            notes = file.read().decode(errors="replace").splitlines(keepends=True)
            sys.stderr.writelines(line for line in notes if re.search(shown_lines, line))


def _start_tensorflow() -> list:
    """Imports TensorFlow and Keras as they are without the user's settings; returns the GPUs.

    What is in ``keras.json`` (data format, type of floats) is for other programs.
    """
    ours = {"KERAS_HOME": os.devnull, "KERAS_NNX_ENABLED": "0"}
    own = {name: text for name, text in os.environ.items() if name in ours}
    os.environ |= ours
    try:
        import keras  # noqa: F401, TensorFlow does not where TF_USE_LEGACY_KERAS is set
        import tensorflow as tf
    finally:
        for name in ours:
            del os.environ[name]
        os.environ |= own
    return tf.config.list_physical_devices("GPU")


def choose_devices(gpu: str | None, deterministic: bool, *, jit: bool = False) -> str:
    """Makes the chosen devices the only visible ones and returns their description.

    Args:
        gpu: ``None`` for all, ``"-1"`` or ``"cpu"`` for none, or numbers such as ``"0,1"``.
        deterministic: repeatable kernels; always on where no GPU is used.
        jit: XLA compiles clusters of operations, on GPUs.

    Raises:
        UserError: a GPU number that is not there.
    """
    import tensorflow as tf

    found = tf.config.list_physical_devices("GPU")
    chosen = found
    if gpu is not None:
        if gpu.strip().lower() in ("-1", "cpu", "none"):
            chosen = []
        else:
            parts = [part.strip() for part in gpu.split(",")]
            there = {str(index) for index in range(len(found))}
            if not set(parts) <= there:
                raise UserError(
                    f"`gpu` {gpu} names a GPU that is not here: TensorFlow sees {len(found)} "
                    "(numbers start at 0, -1 means none)."
                )
            chosen = [found[int(part)] for part in dict.fromkeys(parts)]
    tf.config.set_visible_devices(chosen, "GPU")
    for device in chosen:
        tf.config.experimental.set_memory_growth(device, True)
    if jit:
        tf.config.optimizer.set_jit("autoclustering")
    if deterministic or not chosen:
        tf.config.experimental.enable_op_determinism()
    if chosen:
        return ", ".join(device.name for device in chosen)
    return f"CPU, {os.cpu_count()} cores"
