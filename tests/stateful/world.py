"""Two archives, a snapshot and a vendor, and a sequence of lines carried out on them."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

from archiver.stores.local import lock
from archiver.stores.local import store as local
from tests.stateful import invariants, people
from tests.stateful.damages import DAMAGES, FOR_PEOPLE
from tests.stateful.disk import FORMAT, Look, digest, look
from tests.stateful.invariants import Violation
from tests.stateful.operations import (
    Operation,
    Outcome,
    carried_out,
    copy_into,
    hangs,
    pull_into,
    repair_from_archive,
    repair_from_vendor,
    restore_from,
    verify_in,
)
from tests.stateful.sabotage import Plan
from tests.stateful.truth import INSTANCES, Backup, Content, made
from tests.stateful.vendor import Vendor

ARCHIVES = ("A", "B")
SNAPSHOT = "S"
PLACES = (*ARCHIVES, SNAPSHOT)
VENDOR = "vendor"
ROUNDS = 2
# A lock that another machine left is watched for some beats.
_BEAT_SECONDS = 0.02


@dataclass
class Told:
    """How a sequence went: a line about each step, and what was violated in the last of them."""

    steps: list[str] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)


async def told(lines: Iterable[str], root: Path) -> Told:
    """Carry out a sequence in the empty directory ``root``, until something is violated."""
    result = Told()
    async with _world(root) as world:
        for line in lines:
            result.violations = await world.step(line)
            result.steps.append(f"{line:40} {'; '.join(world.outcomes)}")
            if result.violations:
                break
    return result


@asynccontextmanager
async def _world(root: Path) -> AsyncIterator["World"]:
    vendor = Vendor(root / VENDOR)
    soon = partial(lock.hold, beat=_BEAT_SECONDS)
    with vendor.withholding(), mock.patch.object(local, "hold", soon):
        async with vendor.emulator:
            yield World(root, vendor)


class World:
    """``outcomes`` are those of the last step, in words."""

    def __init__(self, root: Path, vendor: Vendor) -> None:
        self.outcomes: list[str] = []
        self._root = root
        self._vendor = vendor
        self._foreign: dict[Path, str] = {}
        self._formats: dict[str, bytes] = {}
        self._exit_codes: list[int | None] = []
        # Archives with something in the place of an object that is a person's to look at.
        self._odd: set[str] = set()
        self._restored = 0

    async def step(self, line: str) -> list[Violation]:
        """Carry out one line; see :mod:`tests.stateful.steps` for what there is."""
        self.outcomes = []
        match line.split():
            case ["add", instance, content, day, seed]:
                self._add(instance, Content(content), int(day), int(seed))
            case ["vendor", "heal"]:
                self._vendor.heal()
            case ["vendor", trouble, dice]:
                self._note(self._vendor.trouble(trouble, Random(int(dice))))
            case ["damage", name, damage, dice]:
                self._note(self._damage(name, damage, Random(int(dice))))
            case ["snapshot", name]:
                self._note(self._snapshot(name))
            case ["agree"]:
                return await self._agree()
            case ["settle", way]:
                return await self._settle(way)
            case [verb, name, *rest]:
                return await self._operate(verb, name, rest)
            case _:
                raise ValueError(line)
        return []

    def _note(self, happened: bool) -> None:
        self.outcomes.append("" if happened else "nothing there")

    def _add(self, instance: str, content: Content, day: int, seed: int) -> None:
        backups = made(
            {one.split("-bp1")[1]: one for one in INSTANCES}[instance], content, day, seed
        )
        if backups[0] not in self._vendor.backups:
            self._vendor.add(backups)

    def _damage(self, name: str, damage: str, dice: Random) -> bool:
        root = self._root / name
        if not (root / FORMAT).exists():
            return False
        kept = (root / FORMAT).read_bytes()
        before = set(root.rglob("*"))
        happened = DAMAGES[damage](root, dice)
        if damage.startswith(FOR_PEOPLE):
            self._odd.add(name)
        if damage == "format":
            self._formats.setdefault(name, kept)
        if damage == "foreign":
            self._foreign |= {path: digest(path) for path in set(root.rglob("*")) - before}
        return happened

    def _snapshot(self, name: str) -> bool:
        """As ``cp -al`` makes it: the same inodes under other names."""
        if not (self._root / name).exists() or (self._root / SNAPSHOT).exists():
            return False
        shutil.copytree(
            self._root / name, self._root / SNAPSHOT, symlinks=True, copy_function=os.link
        )
        return True

    def _look(self) -> dict[str, Look]:
        return {name: look(self._root / name, self._vendor.backups) for name in PLACES}

    # Operations

    async def _operate(self, verb: str, name: str, rest: list[str]) -> list[Violation]:
        """``rest``: where from, for a copy and a repair; then a sabotage."""
        other = rest.pop(0) if verb in ("copy", "repair") else name
        if verb != "pull" and not all(
            (self._root / one).exists()
            for one in {name if verb != "copy" else other, other} - {VENDOR}
        ):
            self._note(False)
            return []
        plan = Plan(rest[0], int(rest[1])) if rest else None
        if verb == "restore":
            return [
                violation
                for instance in INSTANCES
                for violation in await self._carry_out(verb, name, instance, None)
            ]
        return await self._carry_out(verb, name, other, plan)

    async def _carry_out(
        self, verb: str, name: str, other: str, plan: Plan | None
    ) -> list[Violation]:
        before = self._look()
        outcome = await carried_out(self._operation(verb, name, other), self._root / name, plan)
        after = self._look()
        self.outcomes.append(str(outcome))
        self._exit_codes.append(outcome.exit_code)
        found = list(self._violated(verb, name, outcome, before, after))
        undisturbed = plan is None and name not in self._formats and other not in self._formats
        if verb == "restore":
            found += invariants.restored_the_truth(outcome, before[name])
        elif verb == "copy":
            found += invariants.copy_kept_its_word(outcome, before[other], after[name])
            if outcome.exit_code == 0:
                found += await self._asked(
                    invariants.is_mirrored(self._root / other, self._root / name)
                )
        elif verb == "pull":
            found += invariants.pull_kept_its_word(outcome, self._vendor, after[name])
        else:
            found += invariants.verify_kept_its_word(outcome, before[name], after[name])
        if undisturbed and verb in ("pull", "copy"):
            coming = self._supplied(VENDOR if verb == "pull" else other, before)
            found += invariants.others_came_home(coming, before[name], after[name])
        elif undisturbed and verb == "repair" and not self._is_for_people(name):
            supplied = self._supplied(other, before)
            found += invariants.repair_did_its_work(supplied, outcome, before[name], after[name])
        return found

    def _is_for_people(self, name: str) -> bool:
        """Whether something is in an archive that a repair leaves as it is."""
        return name in self._odd or any(self._root / name in one.parents for one in self._foreign)

    def _supplied(self, supplier: str, looks: dict[str, Look]) -> list[Backup]:
        """What the vendor or an archive can give, right and proven."""
        if supplier == VENDOR:
            return [one for one in self._vendor.backups if self._vendor.is_well(one)]
        return [one for one, seen in looks[supplier].backups.items() if seen.is_whole]

    def _violated(
        self,
        verb: str,
        name: str,
        outcome: Outcome,
        before: dict[str, Look],
        after: dict[str, Look],
    ) -> Iterable[Violation]:
        yield from invariants.fails_well(outcome)
        yield from invariants.loses_nothing(before[name], after[name])
        yield from invariants.tells_the_truth(outcome, after[name])
        for one in PLACES:
            if one != name or verb == "restore":
                yield from invariants.only_read(one, before[one], after[one])
        if verb == "verify":
            # Its results, and what is left of them when they could not be written.
            results = ("verified/", ".staging/")
            yield from invariants.only_read(name, before[name], after[name], results)
        there = {path: digest(path) for path in self._foreign if path.exists()}
        yield from invariants.keeps_foreign(self._foreign, there)

    def _operation(self, verb: str, name: str, other: str) -> Operation:
        root = self._root / name
        match verb, other:
            case "pull", _:
                return partial(pull_into, root, self._vendor)
            case "copy", _:
                return partial(copy_into, root, self._root / other)
            case "verify", _:
                return partial(verify_in, root)
            case "repair", "vendor":
                return partial(repair_from_vendor, root, self._vendor)
            case "repair", _:
                return partial(repair_from_archive, root, self._root / other)
            case "restore", instance:
                self._restored += 1
                return partial(
                    restore_from, root, self._root / f"restored-{self._restored}", instance
                )
        raise ValueError(verb)

    # Answers

    async def _agree(self) -> list[Violation]:
        """All that only read, of all archives, beside each other."""
        before = self._look()
        found = []
        for name in ARCHIVES:
            if before[name].is_archive and name not in self._formats:
                found += await self._asked(invariants.commands_agree(self._root / name))
        for one, two in (ARCHIVES, ARCHIVES[::-1]):
            if before[one].is_archive and before[two].is_archive and not self._formats:
                found += await self._asked(
                    invariants.mirrors_agree(
                        self._root / one, self._root / two, before[one], before[two]
                    )
                )
        after = self._look()
        for name in PLACES:
            found += invariants.only_read(name, before[name], after[name])
        return found

    async def _asked(self, question: Coroutine[Any, Any, list[Violation]]) -> list[Violation]:
        """What an invariant that asks the tool finds; and that it hangs."""
        task = asyncio.create_task(question)
        hung = await hangs(task, self._root)
        return [*([invariants.HUNG] if hung else []), *await task]

    # Healing

    async def _settle(self, way: str) -> list[Violation]:
        """Heal the vendor, do what is a person's to do, and let the tool do the rest."""
        self._vendor.heal()
        for name in ARCHIVES:
            self._tidy(name)
        names = [one for one in ARCHIVES if (self._root / one).exists()]
        for name in names:
            found = await self._settle_one(name, way if name != names[0] else VENDOR)
            if found:
                return found
        return await self._agree()

    async def _settle_one(self, name: str, way: str) -> list[Violation]:
        steps = ("pull" if way == VENDOR else "copy", "repair")
        for _ in range(ROUNDS):
            self._exit_codes.clear()
            for verb in steps:
                found = await self._operate(verb, name, [way] if verb != "pull" else [])
                if found:
                    return found
        now = look(self._root / name, self._vendor.backups)
        return await self._asked(invariants.is_settled(self._root / name, now, self._exit_codes))

    def _tidy(self, name: str) -> None:
        """Do what a verify's advice leaves to people."""
        root = self._root / name
        if not root.exists():
            return
        for path in [one for one in self._foreign if root in one.parents]:
            path.unlink(missing_ok=True)
            del self._foreign[path]
        if name in self._formats:
            (root / FORMAT).write_bytes(self._formats.pop(name))
        if people.put_in_order(root, self._vendor.backups) or name in self._odd:
            people.forget_results(root)
        self._odd.discard(name)
