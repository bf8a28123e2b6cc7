"""What the command lines share: errors, devices, help with defaults, data.

Shapes and names
----------------
flag  an option of a command line, with its default and the default's origin in the help.
"""

from __future__ import annotations

import argparse
import difflib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from keras_frcnn.errors import UserError


class HelpfulParser(argparse.ArgumentParser):
    """Suggests the nearest flag where one is misspelt."""

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def parse_args(self, args=None, namespace=None):
        values, unknown = self.parse_known_args(args, namespace)
        if unknown:
            known = [option for action in self._actions for option in action.option_strings]
            near = difflib.get_close_matches(unknown[0].split("=")[0], known, n=1)
            hint = f" Did you mean {near[0]}?" if near else " See --help."
            self.error(f"unknown argument {unknown[0]!r}.{hint}")
        return values

    def error(self, message: str):
        print(f"{self.prog}: {message}", file=sys.stderr)
        raise SystemExit(2)


def quiet_tensorflow() -> None:
    """Keeps TensorFlow's start-up notes off the screen; call before it is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


def run_main(
    main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None
) -> int:
    """Runs a command; a user's mistake is one sentence and exit code 2.

    Returns:
        The exit code.
    """
    try:
        main(argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped.", file=sys.stderr)
        return 130
    return 0


def choose_devices(gpu: str | None, deterministic: bool) -> str:
    """Makes the chosen devices the only visible ones and returns their description.

    Args:
        gpu: ``None`` for all, ``"-1"`` or ``"cpu"`` for none, or numbers such as ``"0,1"``.
        deterministic: repeatable kernels; always on where no GPU is used.

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
            try:
                chosen = [found[int(number)] for number in gpu.split(",")]
            except (ValueError, IndexError) as error:
                raise UserError(
                    f"--gpu {gpu} names a GPU that is not here: TensorFlow sees {len(found)} "
                    "(numbers start at 0, -1 means none)."
                ) from error
    tf.config.set_visible_devices(chosen, "GPU")
    for device in chosen:
        tf.config.experimental.set_memory_growth(device, True)
    if deterministic or not chosen:
        tf.config.experimental.enable_op_determinism()
    if chosen:
        return ", ".join(device.name for device in chosen)
    return f"CPU, {os.cpu_count()} cores"


def existing_path(text: str, what: str) -> Path:
    """A path that must exist.

    Raises:
        UserError: it does not; the message names the working folder.
    """
    path = Path(text).expanduser()
    if not path.exists():
        raise UserError(f"{what} {text} does not exist (looked from {Path.cwd()}).")
    return path


def numbers(text: str, kind: type, flag: str, count: int | None = None) -> tuple:
    """Parses ``"1,2,3"``.

    Raises:
        UserError: not numbers, not positive, or not as many as ``count``.
    """
    try:
        values = tuple(kind(part) for part in text.replace(" ", "").split(","))
    except ValueError as error:
        raise UserError(f"{flag} takes numbers separated by commas, not {text!r}.") from error
    if count is not None and len(values) != count:
        raise UserError(f"{flag} takes {count} numbers separated by commas, not {text!r}.")
    if any(not value > 0 for value in values):
        raise UserError(f"{flag} takes numbers above 0, not {text!r}.")
    return values


def make_console() -> Console:
    """The console of a command: wide enough for one progress line where output is piped."""
    console = Console()
    return console if console.is_terminal else Console(width=160)
