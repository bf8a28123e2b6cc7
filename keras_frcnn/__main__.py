"""``python -m keras_frcnn COMMAND``."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module

from keras_frcnn.errors import UserError

COMMANDS = {
    "train": "train Faster R-CNN (the same as train_frcnn.py)",
    "test": "detect objects in images (the same as test_frcnn.py)",
    "evaluate": "PASCAL VOC average precision of a run or of a file of detections",
    "proposals": "boxes of a data set by Selective Search, EdgeBoxes or an RPN, in a file",
    "recall": "how many objects the proposals of files cover",
    "export": "a SavedModel or an ONNX file from a run",
    "compress": "a run with fc6 and fc7 as truncated SVD: fewer multiplications a RoI",
    "paper": "the tables and figures of the paper, its numbers beside ours",
    "anchors": "anchor shapes that fit a data set",
    "benchmark": "time and memory of every part on this machine",
    "demo": "generate a small data set, train, test, evaluate and export on it",
}


def usage() -> str:
    """The list of commands."""
    lines = [f"  {name:10s} {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: python -m keras_frcnn COMMAND ...",
            "",
            *lines,
            "",
            "COMMAND --help tells its flags.",
        ]
    )


def main(command: str | None = None) -> int:
    """Runs a command and returns its exit code.

    Args:
        command: its name; default: the first word of the command line.
    """
    try:
        from keras_frcnn.cli.common import run_main
    except KeyboardInterrupt:  # nobody answers Ctrl-C before it is there
        print("SIGINT received: stopped.", file=sys.stderr)
        return 130
    return run_main(_run if command is None else partial(_run_command, command))


def _run(words: Sequence[str]) -> None:
    name = words[0] if words else ""
    if name in ("-h", "--help"):
        from keras_frcnn.cli.common import as_called

        print(as_called(usage()))
        return
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"Expected one of {', '.join(COMMANDS)}."
        raise UserError(f"{f'unknown command {name!r}' if name else 'no command'}. {hint}")
    _run_command(name, words[1:])


def _run_command(name: str, words: Sequence[str]) -> None:
    """A command starts TensorFlow only after its flags are understood: help needs no seconds."""
    import_module(f"keras_frcnn.cli.{name}").main(words)


if __name__ == "__main__":
    raise SystemExit(main())
