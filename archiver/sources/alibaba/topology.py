"""How many shards a classic cluster has, as DescribeLogicInstanceTopology tells. Pure.

Neither DescribeInstances nor a backup says it. Today's number says nothing of a backup that was
made before the cluster was resized. So a number counts only for backups that began between two
answers with the same shards, and with no other answer in between. A cluster that was resized twice
between two answers, and has its old shards again, is not noticed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from archiver.errors import SourceError
from archiver.model import Backup, NodesExpected
from archiver.sources.alibaba.fields import SOURCE

ACTION: Final = "DescribeLogicInstanceTopology"


@dataclass(frozen=True, slots=True)
class Topology:
    """The ``nodes`` that every answer named from ``since`` to ``until``, in seconds since 1970.
    After a single answer, ``until`` is before ``since``: it says nothing of any backup."""

    nodes: frozenset[str]
    since: float
    until: float

    def told(self, backups: tuple[Backup, ...]) -> tuple[Backup, ...]:
        """The same backups of the cluster, with the number of nodes their sets should have, where
        that is known. It is of none of them if one of that time has a node that was not named:
        then the answers are about something else than the backups."""
        if not {one.node_id for one in backups if self._covers(one)} <= self.nodes:
            return backups
        expected = NodesExpected(len(self.nodes), ACTION)
        return tuple(
            replace(one, nodes_expected=expected) if self._covers(one) else one for one in backups
        )

    def _covers(self, backup: Backup) -> bool:
        return is_shard(backup) and self.since <= backup.started_at.timestamp() <= self.until


def is_shard(backup: Backup) -> bool:
    """Whether it is a dump of a shard that DescribeBackups lists; a shard need not have logs."""
    return backup.source == SOURCE and not backup.is_standard and not backup.is_log


def read_nodes(instance_id: str, answer: Mapping[str, Any]) -> frozenset[str]:
    """The shards in an answer, by the names that backups have. Raises SourceError where it has
    none."""
    try:
        shards = [one for one in answer["RedisShardList"]["NodeInfo"] if one["NodeType"] == "db"]
        nodes = frozenset(one["NodeId"].partition("#")[0] for one in shards)
    except (KeyError, TypeError, AttributeError):
        nodes = frozenset()
    if not nodes or "" in nodes:
        raise SourceError(f"{instance_id}: the answer to {ACTION} does not name its shards")
    return nodes
