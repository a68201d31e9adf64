"""Exceptions with messages for users."""


class NrcgError(ValueError):
    """Bad input: one line that names the file or key, and the remedy.

    The command line prints it as ``error: …`` and exits with status 2; no traceback.
    """


class Stopped(BaseException):
    """A job stopped on request; the same command continues it.

    The command line prints it and exits with status 75 ("try again"). Like KeyboardInterrupt it is no `Exception`, so
    that handlers of arbitrary library errors do not catch it.
    """


def one_line(error: Exception) -> str:
    """The message of another library's error as one line; its type if the message is empty."""
    return " ".join(str(error).split()) or type(error).__name__


def first_line(error: Exception) -> str:
    """The first line of a message that continues with advice or a trace."""
    return (str(error).strip() or type(error).__name__).partition("\n")[0].strip()
