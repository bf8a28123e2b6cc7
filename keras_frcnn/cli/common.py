"""How a command runs: its errors, signals, paths and screen, and the start of TensorFlow."""

from __future__ import annotations

import errno
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from keras_frcnn.errors import UserError, reason_of, shown
from keras_frcnn.recipes import PAPER
from keras_frcnn.system.devices import choose_devices, quiet_tensorflow
from keras_frcnn.system.files import user_path
from keras_frcnn.system.screen import lasting_screen
from keras_frcnn.system.settings import flags_of
from keras_frcnn.system.signals import TrainingStopped, signal_of, signals_raise

# Paths that cannot be used: always something that the user named.
_PATH_ERRORS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    *(errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG),
    *(errno.EIO, errno.ESTALE),  # a disk or a network mount that fails
    *(errno.ELOOP, errno.ENXIO),  # a link or a pipe that is not written through
}
# Fields and arguments of the library that are called otherwise on the command line.
_FLAGS = {name: flag.option for name, flag in flags_of(PAPER)} | {
    "number_of_proposals": "--num_proposals",
    "short_sides": "--scales",
    "head_chunk": "--num_rois",
    "boxes_given": "--proposals",
    "score_threshold": "--score_thresh",
    "draw_threshold": "--draw_thresh",
}
_FIELD = re.compile(r"`([a-z0-9_.]+)`")
# Of every command: shows where an error came from.
TRACEBACK_FLAG = "--traceback"


def run_main(main: Callable[[Sequence[str]], None], argv: Sequence[str] | None = None) -> int:
    """Runs a command: whatever happens is one sentence, never a traceback.

    Returns:
        The exit code: 0, 2 for a user's mistake, 1 for what nobody expected, 128 and the number of
        a signal (130 for Ctrl-C).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    with lasting_screen():
        try:
            with signals_raise():
                main([flag for flag in arguments if flag != TRACEBACK_FLAG])
        except (TrainingStopped, KeyboardInterrupt) as stop:
            received = signal_of(stop)
            is_told = isinstance(stop, TrainingStopped)
            sentence = str(stop) if is_told else f"{received.name} received: stopped."
            code = 128 + received
        except Exception as error:
            sentence, code = _about_error(error, TRACEBACK_FLAG in arguments)
        else:
            return 0
        print(shown(in_flags(sentence)), file=sys.stderr)
        return code


def in_flags(text: str) -> str:
    """A text in the words of the command line, for one in the words of the library.

    Fields in backticks are flags, and commands are called as this one was.
    """
    return as_called(_FIELD.sub(lambda found: _FLAGS.get(found[1], f"--{found[1]}"), text))


def as_called(text: str) -> str:
    """A text with ``frcnn`` in place of ``python -m keras_frcnn`` where the user calls it so."""
    is_installed = Path(sys.argv[0]).stem == "frcnn"
    return text.replace("python -m keras_frcnn", "frcnn") if is_installed else text


def _about_error(error: Exception, with_traceback: bool) -> tuple[str, int]:
    """The sentence about an error and the exit code.

    What nobody expected is told with all that is known, and where the rest is.
    """
    if with_traceback:
        for line in "".join(traceback.format_exception(error)).splitlines():
            print(shown(line), file=sys.stderr)
    if isinstance(error, UserError):
        return f"error: {error}", 2
    if isinstance(error, OSError) and error.errno in _PATH_ERRORS and error.filename is not None:
        return f"error: {error.filename} cannot be used: {error.strerror}.", 2
    kind, reason = type(error).__name__, reason_of(error)
    what = f"{kind}: {reason}" if reason != kind else kind
    sentence = f"error: {getattr(error, 'doing', 'the command')} failed ({what})"
    return f"{sentence}; {_kept_traceback(error)}.", 1


def _kept_traceback(error: Exception) -> str:
    text = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile(
            "w",
            encoding="utf-8",
            errors="backslashreplace",
            prefix="keras_frcnn-",
            suffix=".txt",
            delete=False,
        ) as file:
            file.write(text)
    except OSError:
        return f"{TRACEBACK_FLAG} shows where"
    return f"{file.name} has the full traceback, {TRACEBACK_FLAG} shows it"


def existing_path(text: str, what: str) -> Path:
    """A path that must exist.

    Raises:
        UserError: it does not; the message names the working folder.
    """
    path = user_path(text)
    if not path.exists():
        raise UserError(f"{what} {text} does not exist (looked from {Path.cwd()}).")
    return path


def check_outside(target: Path, data: Path, what: str) -> None:
    """Makes sure that nothing is written into a folder of data.

    Args:
        target: the file or folder that is to be written.
        data: a folder of data, or a file that names them.
        what: the flag of the target, or what it is.

    Raises:
        UserError: the target lies in the folder.
    """
    if data.is_dir() and user_path(target).resolve().is_relative_to(data.resolve()):
        raise UserError(
            f"{what} {target} lies in the data folder {data}, and nothing is ever written into "
            "data; name a place elsewhere."
        )


def data_path(text: str, *targets: Path | None, what: str = "--out") -> Path:
    """The path of the data; nothing will be written into them.

    Args:
        targets: what is to be written, where it is.
        what: the flag of the targets, or what they are.

    Raises:
        UserError: it does not exist, or a target lies in it.
    """
    if text.startswith("tfds:"):  # a name of TensorFlow Datasets
        return Path(text)
    path = existing_path(text, "The data path")
    for target in targets:
        if target is not None:
            check_outside(target, path, what)
    return path


def output_file(text: str, flag: str) -> Path:
    """A file that can be written later; asked before hours of work, nothing is written yet.

    Raises:
        UserError: it is a folder, or no file can be made there.
    """
    path = user_path(text)
    if path.is_dir():
        raise UserError(f"{flag} takes a file, and {text} is a folder; add a file name.")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(path if path.exists() else above, os.W_OK):
        raise UserError(f"{flag} {text} cannot be written: check the permissions of {above}.")
    return path


@contextmanager
def progress_bar(
    console: Console, title: str, total: int | None = None, *, transient: bool = False
) -> Iterator[Callable[..., None]]:
    """A bar on the screen, where it is a terminal.

    Args:
        transient: whether it is gone at the end.

    Yields:
        What is told how much is done, and how much there is in all where that was not known.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=transient, disable=hidden) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done, total=None: bar.update(task, completed=done, total=total)


def start(
    gpu: str | None, *, deterministic: bool = False, jit: bool = False
) -> tuple[Console, str]:
    """Starts TensorFlow on the chosen devices, when all that is known without it is checked.

    Returns:
        The console of the command, and the description of the devices.

    Raises:
        UserError: as :func:`keras_frcnn.system.devices.choose_devices`.
    """
    console = make_console()
    quiet_tensorflow()
    return console, choose_devices(gpu, deterministic, jit=jit)


class _PlainConsole(Console):
    """Every text, one in a table too, is one line and nothing but text: no markup, no control."""

    def __init__(self, **settings):
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def render_str(self, text: str, **how) -> Text:
        return super().render_str(shown(in_flags(text)), **how)


def make_console() -> Console:
    """The console of a command: plain text, wide enough for one progress line where it is piped."""
    if sys.stdout.isatty():
        return _PlainConsole()
    # Not left to rich: notebooks and CI set FORCE_COLOR, which would draw live bars into a pipe.
    return _PlainConsole(width=160, force_terminal=False)
