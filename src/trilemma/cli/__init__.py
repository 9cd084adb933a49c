"""The command line: one file per command, each of which parses, calls one function of the API and prints."""

from trilemma.cli.frame import main

__all__ = ["main"]
