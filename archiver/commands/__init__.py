"""A package a command: what each of them does, from its first step to its last, in ``run``."""
