"""Reads the evidence of earlier drills."""

import hashlib
from pathlib import Path
from typing import Final

from archiver.errors import ArchiverError, BadDocument, UnreadableObject
from archiver.report import chain
from archiver.report.document import decode
from archiver.report.evidence import Link, Verdict
from archiver.report.words import loaded_keys, plural
from archiver.stores.base import Store

# The newest documents that are read; older ones are not, so that a drill takes no longer over time.
_LOOK_BACK = 100


class History:
    """The chain of evidence in a store."""

    def __init__(self, store: Store) -> None:
        self._store: Final = store

    async def faults(self) -> list[chain.Finding]:
        """Return the faults of the newest hundred documents. Raises the error of a hidden one."""
        keys = await self._keys()
        documents = [(key, await self._read(key)) for key in keys[-_LOOK_BACK:]]
        # The document before the oldest of them is not missing: it was not read.
        return [
            finding
            for finding in chain.check_chain(documents)
            if finding.fault is not chain.Fault.MISSING or finding.key not in keys
        ]

    async def last_keys(self, instances: set[str]) -> dict[str, tuple[str, int]]:
        """Return for each instance the last drill that it passed: its id, and the keys it counted.

        It is searched in the newest hundred documents. For an instance that they do not contain,
        the note on its last drill is used, however many drills of other instances came later.
        Documents that cannot be read are skipped: :meth:`faults` reports them.
        """
        found: dict[str, tuple[str, int]] = {}
        keys = await self._keys()
        for key in reversed(keys[-_LOOK_BACK:]):
            if found.keys() >= instances:
                return found
            for instance, last in (await self._passed(key)).items():
                if instance in instances:
                    found.setdefault(instance, last)
        if len(keys) > _LOOK_BACK:
            for instance in instances - found.keys():
                noted = await self._noted(instance)
                if noted is not None:
                    found[instance] = noted
        return found

    async def why_no_last(self) -> str:
        """Say why :meth:`last_keys` may have no drill of an instance.

        Raises the error of a hidden document.
        """
        count = len(await self._keys())
        if count <= _LOOK_BACK:
            return "it has not passed a drill yet"
        return (
            f"it passed none of the newest {_LOOK_BACK} of {plural(count, 'drill')}, and there is "
            "no note of an earlier one"
        )

    async def last(self) -> tuple[str | None, Link | None]:
        """Return the last id of the chain, and the link for the next document.

        The link is to the last document that can be read; what lies between remains a fault.
        Raises StoreError.
        """
        keys = await self._keys()
        last = Path(keys[-1]).stem if keys else None
        for key in reversed(keys):
            data = await self._read(key)
            if not isinstance(data, ArchiverError):
                # Not chain.link, which decodes: link to a damaged document as it is now.
                return last, Link(Path(key).stem, hashlib.sha256(data).hexdigest())
        return last, None

    async def _passed(self, key: str) -> dict[str, tuple[str, int]]:
        """Return for each instance that passed a drill: the id of the drill, and its keys."""
        data = await self._read(key)
        found: dict[str, tuple[str, int]] = {}
        if isinstance(data, ArchiverError):
            return found
        try:
            evidence = decode(data, key)
        except ArchiverError:
            return found
        for one in evidence.sets:
            if one.verdict is Verdict.PASS:
                found.setdefault(one.instance_id, (evidence.id, loaded_keys(one.files)))
        return found

    async def _noted(self, instance: str) -> tuple[str, int] | None:
        """Return the same for the drill in the note on an instance; None without a valid note.

        The keys are those of the evidence, so a wrong note cannot lead to wrong keys.
        """
        key = chain.last_key(instance)
        data = await self._read(key)
        if isinstance(data, ArchiverError) or not data:
            return None
        try:
            noted = chain.last_id(key, data)
        except ArchiverError:
            return None
        return (await self._passed(chain.evidence_key(noted))).get(instance)

    async def _read(self, key: str) -> bytes | ArchiverError:
        """Return a document, or the error why it cannot be read."""
        try:
            return await self._store.read(key) or b""
        except (BadDocument, UnreadableObject) as error:
            return error

    async def _keys(self) -> list[str]:
        """Return the keys of all evidence. Raises the error of a hidden entry, which may be part
        of the chain."""
        keys = list[str]()
        async for entry in self._store.entries(chain.PREFIX):
            if chain.is_evidence_key(entry.key):
                keys.append(entry.key)
            elif entry.hides is not None:
                raise entry.hides
        return sorted(keys)
