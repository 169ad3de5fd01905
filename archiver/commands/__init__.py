"""One package per command: its steps, from the first to the last, are in ``run``."""
