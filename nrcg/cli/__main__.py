"""`python -m nrcg.cli`, where the console command is not installed."""

from nrcg.cli import main

main()
