"""``archiver status``: what each instance should have in an archive, and what it has."""
