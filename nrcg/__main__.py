"""The command `nrcg`. Its verbs need the extra `nrcg[workflow]`."""

import sys


def main() -> None:
    """Run a verb; if a package is missing, print one line with the command that installs it and exit with status 2."""
    try:
        from nrcg.cli import main as run

        run()
    except ModuleNotFoundError as error:
        if not error.name or error.name.partition(".")[0] == "nrcg":
            raise
        print(f"error: no package {error.name}; pip install 'nrcg[workflow]' installs it", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
