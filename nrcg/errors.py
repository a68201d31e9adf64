"""The exceptions that users are meant to read."""


class NrcgError(ValueError):
    """Bad input: one line that names the file or key, and the way out.

    The command line prints it as ``error: …`` and exits with status 2; no traceback.
    """


class Stopped(Exception):
    """A job that was asked to stop, and did where it can go on: all that is done is kept.

    The command line prints it and exits with status 75, which stands for "try again".
    """
