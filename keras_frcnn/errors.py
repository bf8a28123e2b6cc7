"""What a user can mend, what other libraries' errors say, and how names are printed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

# Before what happened TensorFlow names its own operation, and lists lines of its own program.
_OPERATION = re.compile(r"^(\{\{[^}]*\}\} )+")
_ADDRESS = re.compile(r"<[^>]* object at 0x[0-9a-f]+>")  # no two reports would be equal
_OF_GRAPH = re.compile(r"\s|$|Graph execution error:|Detected at node |<stack traces")
# Control characters, line ends of any kind, marks that turn the direction of text, and surrogates.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_MOST_SHOWN = 500


class UserError(ValueError):
    """A mistake that the user can mend: a path, a layout, a flag, weights that do not fit.

    The message is a whole sentence that says what was expected, what was received, where, and what
    to do. The command lines print it without a traceback and exit with code 2.
    """


def how_to_install(extra: str) -> str:
    """How to get the packages of an extra, for the end of a sentence."""
    return f'pip install "keras-frcnn[{extra}]", in a checkout ".[{extra}]"'


def check_installed(what: str, names: Sequence[str], extra: str) -> None:
    """Makes sure that optional packages are there, without importing them.

    Args:
        what: needs them, the subject of the sentence.
        names: as they are imported.
        extra: of this package, which installs them.

    Raises:
        UserError: naming those that are missing.
    """
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise UserError(
            f"{what} need {', '.join(names)}; not installed here: {', '.join(missing)}. "
            f"{how_to_install(extra)}."
        )


def shown(text: object) -> str:
    """A name as it can be printed: what would move the cursor or forge a line as ``\\x1b``."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], str(text))


def counted(number: int, noun: str) -> str:
    """``"1 image"``, ``"2 images"``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def reason_of(error: BaseException) -> str:
    """The first line of what an error says, to stand in a sentence; else the name of its kind."""
    # The message of a KeyError is its key in quotes and nothing else.
    text = "" if isinstance(error, KeyError) else getattr(error, "message", None) or error
    lines = [line for line in str(text).strip().splitlines() if not _OF_GRAPH.match(line)]
    if not lines:
        return type(error).__name__ + (f" {error}" if isinstance(error, KeyError) else "")
    return _ADDRESS.sub("the data", _OPERATION.sub("", lines[0]))[:_MOST_SHOWN]


@contextmanager
def reading(path: Path | str, what: str, advice: str) -> Iterator[None]:
    """Reads a file that anybody may have made: whatever goes wrong is a sentence about the file.

    No list of exceptions can be complete: what a parser raises on a hostile file depends on the
    parser. A :class:`UserError` that says it better passes.

    Args:
        what: the file should be, with its article: ``"a weight file"``.
        advice: what to do, without a full stop.

    Raises:
        UserError: naming the file, what was expected and what happened instead.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{path} cannot be read as {what} ({reason_of(error)}); {advice}."
        ) from error


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Says what the program does, for the sentence about an exception that nobody expected.

    Args:
        what: with the file where there is one: ``"drawing photo.jpg"``. The innermost counts.
    """
    try:
        yield
    except Exception as error:
        error.__dict__.setdefault("doing", what)
        raise
