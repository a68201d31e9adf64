"""The command `nrcg`. What its verbs need beyond the library comes with `nrcg[workflow]`."""

import sys


def main() -> None:
    """Run a verb; where a package is missing, say in one line what installs it, with exit status 2."""
    try:
        from nrcg.cli import main as run

        run()
    except ModuleNotFoundError as error:
        if not error.name or error.name.partition(".")[0] == "nrcg":
            raise
        print(f"error: no package {error.name}; pip install 'nrcg[workflow]' has what the verbs need", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
