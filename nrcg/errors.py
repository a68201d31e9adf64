"""The exceptions that users are meant to read."""


class NrcgError(ValueError):
    """Bad input: one line that names the file or key, and the way out.

    The command line prints it as ``error: …`` and exits with status 2; no traceback.
    """


class Stopped(BaseException):
    """A job that was asked to stop, and did; run again, it goes on.

    The command line prints it and exits with status 75, which stands for "try again". Like KeyboardInterrupt it is no
    `Exception`: code that expects many kinds of errors from a library must not take it for one.
    """


def one_line(error: Exception) -> str:
    """What another library says, as one line; its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def first_line(error: Exception) -> str:
    """The same of one that goes on with advice or a trace: its first line alone."""
    return (str(error).strip() or type(error).__name__).partition("\n")[0].strip()
