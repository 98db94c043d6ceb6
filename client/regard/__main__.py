"""Lets `python -m regard` do what `regard` does."""

from regard.cli import main

main()
