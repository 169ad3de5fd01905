"""The command line: the only place that knows click and tqdm, that composes, prints and exits."""

from archiver.cli.main import main

__all__ = ["main"]
