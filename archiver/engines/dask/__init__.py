"""Work in the workers of a dask cluster.

The coordinator is the process of the command: it lists, plans, holds the locks, and writes what
concerns sets, months and the whole archive. Each backup or file, or batch of small ones, or set of
a drill is a task. Its worker runs the same code as a command without a cluster, and returns flat
data:

- of a pull (:mod:`~archiver.engines.dask.pulling` and :mod:`~archiver.engines.dask.downloading`)
  that of :mod:`archiver.engines.inline`,
- of a run that reads the archive (:mod:`~archiver.engines.dask.crew`) the jobs of
  :mod:`archiver.jobs`.

A task is sealed, and only its name is seen: a key, or the name of a backup. What a worker needs
beside it comes in messages: a pull's asks its coordinator for the URLs of its backups, for how long
their locks are lent to it (:mod:`archiver.stores.loans`), and what its share of the rate limit is.
Questions and answers pass through the scheduler, so that neither has to reach the other.
"""
