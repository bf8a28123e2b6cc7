"""The one exception for what a user can get wrong."""


class UserError(ValueError):
    """A mistake that the user can mend: a path, a layout, a flag, weights that do not fit.

    The message is a whole sentence that says what was expected, what was received, where, and what
    to do. The command lines print it without a traceback and exit with code 2.
    """
