"""Starts trainings at a third of their cost: TensorFlow is imported once, before the forks.

Nothing of TensorFlow is used before a fork, so that every training is a process as any other: it
starts its own devices and threads, and dies alone. Reads ``{"flags": [...], "log": PATH}`` line by
line, forks ``train_frcnn.py`` with these flags and answers its process number, and its end:
``exit 0``, or ``signal 9``.

Shapes and names
----------------
flags  words of a command line.
"""

from __future__ import annotations

import json
import os
import signal
import sys

import matplotlib.pyplot  # noqa: F401
import tensorflow  # noqa: F401

import keras_frcnn.cli.inputs  # noqa: F401
import keras_frcnn.training.pictures  # noqa: F401
import keras_frcnn.training.stages  # noqa: F401
from keras_frcnn.cli import train
from keras_frcnn.cli.common import run_main


def child(flags: list[str], log: str) -> None:
    """Becomes a training."""
    # A shell starts background jobs with Ctrl-C ignored; a terminal does not.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = ["train_frcnn.py", *flags]
    code = 1
    try:
        code = run_main(train.main)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Serves until stdin ends."""
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            child(order["flags"], order["log"])
        print(pid, flush=True)
        status = os.waitpid(pid, 0)[1]
        if os.WIFSIGNALED(status):
            print("signal", os.WTERMSIG(status), flush=True)
        else:
            print("exit", os.WEXITSTATUS(status), flush=True)


if __name__ == "__main__":
    main()
