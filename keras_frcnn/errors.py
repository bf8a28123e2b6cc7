"""The one exception for what a user can get wrong, and what other libraries' errors say of it."""

from __future__ import annotations

import re

# Before what happened TensorFlow names its own operation.
_OPERATION = re.compile(r"^(\{\{[^}]*\}\} )+")


def reason_of(error: Exception) -> str:
    """The first line of what an error says, to stand in a sentence; else the name of its kind."""
    lines = str(getattr(error, "message", None) or error).strip().splitlines()
    return _OPERATION.sub("", lines[0]) if lines else type(error).__name__


class UserError(ValueError):
    """A mistake that the user can mend: a path, a layout, a flag, weights that do not fit.

    The message is a whole sentence that says what was expected, what was received, where, and what
    to do. The command lines print it without a traceback and exit with code 2.
    """
