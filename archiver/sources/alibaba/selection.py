"""Which instances of the regions are meant. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from archiver.sources.alibaba.instances import Instance


@dataclass(frozen=True, slots=True)
class Selection:
    """Instances by their ids, and, with ``is_all``, all others that have every one of the ``tags``,
    a name that one of the glob patterns ``names`` matches, and the resource group; an empty one
    matches all. ``excluded`` are ids of none of these others.
    """

    ids: tuple[str, ...] = ()
    is_all: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    resource_group: str | None = None
    excluded: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        """Whether anything can be selected."""
        return self.is_all or bool(self.ids)

    @property
    def is_unfiltered(self) -> bool:
        """Whether all instances of a region are listed for it."""
        return self.is_all and not self.tags and self.resource_group is None

    def _matches(self, instance: Instance) -> bool:
        """Whether it is one of all that are meant."""
        return (
            self.is_all
            and instance.instance_id not in self.excluded
            and self._is_listed(instance)
            and (not self.names or any(fnmatchcase(instance.name, one) for one in self.names))
        )

    def _is_listed(self, instance: Instance) -> bool:
        """Whether the API lists it, which is asked for tags and a group only."""
        return self.tags.items() <= instance.tags.items() and self.resource_group in (
            None,
            instance.resource_group,
        )

    def unused(self, instances: Iterable[Instance]) -> list[tuple[str, str]]:
        """What chooses among all ``instances`` and fits none of them, after the name of its option:
        perhaps a typo."""
        listed = list(instances)
        group = self.resource_group
        asked = [f"--tag {key}={value}" for key, value in self.tags.items()]
        asked += [] if group is None else [f"--resource-group {group}"]
        if asked and not any(map(self._is_listed, listed)):
            # Together they fit none, so nothing is known of the other options.
            option, _, value = " ".join(asked).removeprefix("--").partition(" ")
            return [(option, value)]
        ids = {one.instance_id for one in listed}
        excluded = [("exclude", one) for one in sorted(self.excluded - ids)]
        names = [
            ("name", pattern)
            for pattern in self.names
            if not any(fnmatchcase(one.name, pattern) for one in listed)
        ]
        return excluded + names

    def chosen(self, instances: Iterable[Instance]) -> list[Instance]:
        """Those that are selected, each once, by region and id."""
        named = set(self.ids)
        found = {
            one.instance_id: one
            for one in instances
            if one.instance_id in named or self._matches(one)
        }
        return sorted(found.values(), key=lambda one: (one.region, one.instance_id))
