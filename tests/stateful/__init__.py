"""Random operations and damages over two archives and a vendor, held against the true bytes.

A sequence is a tuple of lines like ``pull A``, ``damage A flip 7`` or ``copy A B kill 12``
(:mod:`tests.stateful.steps` makes them, :mod:`tests.stateful.world` carries them out). After each,
the disk is read by code of our own and held against the truth (:mod:`tests.stateful.invariants`).
"""
