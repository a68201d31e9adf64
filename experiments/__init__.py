"""Studies whose results the docs show, each one command."""
