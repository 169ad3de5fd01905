"""Options that say where downloads run: in this process, or in those of a cluster."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from archiver.cli.options import option
from archiver.cli.params import Count, Word
from archiver.errors import UsageError

if TYPE_CHECKING:
    from archiver.engines.base import OpenEngine

F = TypeVar("F", bound=Callable[..., Any])

# Workers have to end as well, or their last word to be out of date.
_CLUSTER_PATIENCE_SECONDS: Final = 15.0


def engine_options(command: F) -> F:
    """Options that choose an engine."""
    for decorate in (
        option(
            "--processes",
            type=Count(1, 256),
            help="With --engine dask: start so many processes on this machine.",
        ),
        option(
            "--scheduler",
            metavar="ADDRESS",
            help="With --engine dask: use the cluster of this scheduler, e.g. tls://host:8786.",
        ),
        option(
            "--engine",
            type=Word(["inline", "dask"]),
            default="inline",
            help="Where to download: in this process, or in those of a dask cluster.",
        ),
    ):
        command = decorate(command)
    return command


def engine_of(given: Mapping[str, Any]) -> "OpenEngine":
    """The engine that the options choose. Raises UsageError."""
    scheduler, processes = given["scheduler"], given["processes"]
    if given["engine"] == "inline":
        if scheduler is not None or processes is not None:
            raise UsageError("--scheduler and --processes need --engine dask")
        from archiver.engines.inline import inline

        return inline
    if (scheduler is None) == (processes is None):
        raise UsageError("--engine dask needs either --scheduler or --processes")
    try:
        import distributed  # noqa: F401

        from archiver.engines.dask.cluster import Cluster
        from archiver.engines.dask.coordinator import dask
    except ImportError as error:
        # Not by its name: on PyPI that is somebody else's.
        hint = "run pip install '.[dask]' in a checkout of archiver"
        raise UsageError(f"--engine dask: {error}", hint=hint) from None
    return dask(Cluster(scheduler, processes or 0))


def patience_of(given: Mapping[str, Any]) -> float:
    """For how many seconds a run may end after it was interrupted."""
    from archiver.cli.run import PATIENCE_SECONDS

    return PATIENCE_SECONDS if given["engine"] == "inline" else _CLUSTER_PATIENCE_SECONDS
