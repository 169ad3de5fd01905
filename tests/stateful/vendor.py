"""The vendor: the emulator's directory, and what can be wrong with what it lists and serves."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

from archiver.emulator import Emulator, Faults, objects
from tests.conftest import KEY_ID, KEY_SECRET
from tests.stateful.truth import INSTANCES, Backup, Content

CRC_HEADER = "x-oss-hash-crc64ecma"


class Vendor:
    """Serves ``backups``; each of its troubles lasts until :meth:`heal`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.backups: list[Backup] = []
        self.emulator = Emulator(directory, access_key_id=KEY_ID, access_key_secret=KEY_SECRET)
        self._fields: dict[Backup, dict[str, Any]] = {}
        self._without_crc: set[int] = set()
        for instance in INSTANCES:
            (directory / instance).mkdir(parents=True)

    def add(self, backups: list[Backup]) -> None:
        self.backups += backups
        for backup in backups:
            self._serve(backup, backup.data)
        self._write_fields()

    def heal(self) -> None:
        """Everything is listed and served as it was."""
        for instance in INSTANCES:
            deleted, here = self.directory / f".{instance}", self.directory / instance
            if here.exists() and deleted.exists():
                shutil.rmtree(deleted)  # made again since; what it had is served below
            elif deleted.exists():
                deleted.rename(here)
        self._fields.clear()
        self._without_crc.clear()
        self.emulator.faults = Faults()
        for backup in self.backups:
            if self.served(backup) != backup.data:
                self._serve(backup, backup.data)
        self._write_fields()

    def path(self, backup: Backup) -> Path:
        return self.directory / backup.instance / backup.path

    def served(self, backup: Backup) -> bytes | None:
        """The bytes it has now; None when it has the backup no more."""
        with contextlib.suppress(FileNotFoundError):
            return self.path(backup).read_bytes()
        return None

    def knows(self, instance: str) -> bool:
        return (self.directory / instance).exists()

    def lists_as_done(self, backup: Backup) -> bool:
        """Whether a pull has to bring it home, or to say that it could not."""
        status = self._fields.get(backup, {}).get("BackupStatus")
        return self.path(backup).exists() and status != "Running"

    def is_well(self, backup: Backup) -> bool:
        """Whether it gives the right bytes, and says of them what proves them."""
        return (
            self.served(backup) == backup.data
            and backup not in self._fields
            and self.path(backup).stat().st_ino not in self._without_crc
            and self.emulator.faults == Faults()
        )

    def trouble(self, name: str, dice: Random) -> bool:
        """Get into it; False when there is nothing to get into it with."""
        here = [backup for backup in self.backups if self.path(backup).exists()]
        if name in NOISE:
            faults = NOISE[name](dice.randrange(10**6))
            if faults.corrupt and any(map(self._cannot_be_proven, here)):
                return False
            self.emulator.faults = faults
            return True
        if name == "damage":
            here = [backup for backup in here if backup.content is Content.DUMP]
        if name == "withhold-crc" and self.emulator.faults.corrupt:
            return False
        if not here:
            return False
        TROUBLES[name](self, dice.choice(here), dice)
        self._write_fields()
        return True

    def expire(self, backup: Backup, dice: Random) -> None:
        """The file alone, or its whole set."""
        whole = dice.random() < 0.5
        for one in self.backups:
            if one is backup or (whole and one.job == backup.job):
                self.path(one).unlink(missing_ok=True)

    def damage(self, backup: Backup, dice: Random) -> None:
        """Its CRC-64 is that of the damaged bytes: only a dump's own checksum tells."""
        data = bytearray(backup.data)
        how = dice.choice(("flip", "cut", "pad"))
        if how == "flip":
            data[dice.randrange(len(data))] ^= 4
        elif how == "cut":
            del data[dice.randrange(len(data)) :]
        else:
            data += b"x" * 9
        self._serve(backup, bytes(data))

    def withhold_crc(self, backup: Backup, _: Random) -> None:
        self._without_crc.add(self.path(backup).stat().st_ino)

    def misstate(self, backup: Backup, dice: Random) -> None:
        """A wrong field in the listing."""
        field, value = dice.choice(
            (
                ("BackupSize", len(backup.data) + dice.choice((-1, 1))),
                ("BackupStatus", dice.choice(("Failed", "Running"))),
                ("BackupDownloadURL", "http://127.0.0.1:9/nowhere"),
            )
        )
        self._fields[backup] = {field: value}

    def overstate(self, backup: Backup, _: Random) -> None:
        """A size that no disk has."""
        self._fields[backup] = {"BackupSize": 32 * 2**40}

    def delete_instance(self, backup: Backup, _: Random) -> None:
        """It is unknown from now on, and so are its backups."""
        others = [one for one in INSTANCES if one != backup.instance]
        if all(map(self.knows, others)):
            (self.directory / backup.instance).rename(self.directory / f".{backup.instance}")

    def _cannot_be_proven(self, backup: Backup) -> bool:
        """Nobody would notice wrong bytes of it: no test can ask for more."""
        return (
            backup.content is not Content.DUMP
            and self.path(backup).stat().st_ino in self._without_crc
        )

    @contextmanager
    def withholding(self) -> Iterator[None]:
        """The emulator gives no CRC-64 of the files that are to have none."""
        headers = objects._headers

        def fewer(meta: Any) -> dict[str, str]:
            given = headers(meta)
            if meta.stamp.inode in self._without_crc:
                del given[CRC_HEADER]
            return given

        with mock.patch.object(objects, "_headers", fewer):
            yield

    def _serve(self, backup: Backup, data: bytes) -> None:
        path = self.path(backup)
        path.parent.mkdir(exist_ok=True, parents=True)
        path.unlink(missing_ok=True)  # what is being sent stays what it was
        path.write_bytes(data)

    def _write_fields(self) -> None:
        for instance in filter(self.knows, INSTANCES):
            fields = {
                backup.path: {
                    "BackupStartTime": f"{backup.started:%Y-%m-%dT%H:%M:%SZ}",
                    **self._fields.get(backup, {}),
                }
                for backup in self.backups
                if backup.instance == instance
            }
            (self.directory / instance / "backups.json").write_text(json.dumps(fields))


TROUBLES: dict[str, Callable[[Vendor, Backup, Random], None]] = {
    "expire": Vendor.expire,
    "damage": Vendor.damage,
    "withhold-crc": Vendor.withhold_crc,
    "misstate": Vendor.misstate,
    "overstate": Vendor.overstate,
    "delete-instance": Vendor.delete_instance,
}
NOISE: dict[str, Callable[[int], Faults]] = {
    "drop": lambda seed: Faults(drop=0.4, seed=seed),
    "corrupt": lambda seed: Faults(corrupt=0.4, seed=seed),
    "errors": lambda seed: Faults(server_errors=0.4, throttle=0.2, seed=seed),
    "expired": lambda seed: Faults(expire_after=0, seed=seed),
}
