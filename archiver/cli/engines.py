"""Options that say where work is done: in this process, or in those of a cluster."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from archiver.cli.options import option
from archiver.cli.params import Count, Word
from archiver.errors import UsageError

if TYPE_CHECKING:
    from archiver.engines.base import OpenEngine
    from archiver.engines.dask.cluster import Cluster
    from archiver.jobs import OpenCrew

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
            help="Where to work: in this process, or in those of a dask cluster.",
        ),
    ):
        command = decorate(command)
    return command


def engine_of(given: Mapping[str, Any]) -> "OpenEngine":
    """What downloads, by the options. Raises UsageError."""
    cluster = _cluster(given)
    if cluster is None:
        from archiver.engines.inline import inline

        return inline
    from archiver.engines.dask.pulling import dask

    return dask(cluster)


def crew_of(given: Mapping[str, Any]) -> "OpenCrew":
    """What does the jobs of a run that reads an archive, by the options. Raises UsageError."""
    from archiver.jobs import here

    cluster = _cluster(given)
    if cluster is None:
        return here
    from archiver.engines.dask.crew import dask_crew

    return dask_crew(cluster)


def _cluster(given: Mapping[str, Any]) -> "Cluster | None":
    """The cluster to work in; None for this process."""
    scheduler, processes = given["scheduler"], given["processes"]
    if given["engine"] == "inline":
        if scheduler is not None or processes is not None:
            raise UsageError("--scheduler and --processes need --engine dask")
        return None
    if (scheduler is None) == (processes is None):
        raise UsageError("--engine dask needs either --scheduler or --processes")
    try:
        import distributed  # noqa: F401

        from archiver.engines.dask.cluster import Cluster
    except ImportError as error:
        # Not by its name: on PyPI that is somebody else's.
        hint = "run pip install '.[dask]' in a checkout of archiver"
        raise UsageError(f"--engine dask: {error}", hint=hint) from None
    return Cluster(scheduler, processes or 0)


def patience_of(given: Mapping[str, Any], inline: float | None = None) -> float:
    """For how many seconds a run may end after it was interrupted: in this process ``inline``, or
    as long as most."""
    from archiver.cli.run import PATIENCE_SECONDS

    inline = PATIENCE_SECONDS if inline is None else inline
    return inline if given["engine"] == "inline" else _CLUSTER_PATIENCE_SECONDS
