"""Downloads in the workers of a dask cluster.

The coordinator is the process of the pull: it lists, plans, holds the locks, and writes what
concerns sets and months. Each backup, or batch of small ones, is a task. Its worker runs the same
code as a pull without a cluster (:mod:`archiver.engines.inline`), and returns flat data.

A task names backups, and holds nothing secret. What a worker needs beside it comes in messages:
it asks its coordinator for the URLs of its backups, for how long their locks are lent to it
(:mod:`archiver.stores.loans`), and what its share of the rate limit is. Questions and answers pass
through the scheduler, so that neither has to reach the other.
"""
