"""What dask runs in each process of a cluster of our own, before anything else."""

import signal


def dask_setup(_: object) -> None:
    """Leave signals to the coordinator: Ctrl-C in a terminal goes to all of them."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
