"""Random operations and damages over two archives and a vendor, held against the true bytes.

A sequence is a tuple of lines like ``pull A``, ``damage A flip 7`` or ``copy A B kill 12``
(:mod:`tests.stateful.steps` makes them, :mod:`tests.stateful.world` carries them out). After each,
the disk is read by code of our own and held against the truth (:mod:`tests.stateful.invariants`).

A seed makes a sequence, not hypothesis: the tool works in threads, so the n-th call is not always
the same one, which hypothesis takes for a test that cannot be trusted. Halving finds a short one.
"""
