"""The one exception that users are meant to read."""


class NrcgError(Exception):
    """Bad input: one line that names the file or key, and the way out.

    The command line prints it as ``error: …`` and exits with status 2; no traceback.
    """
