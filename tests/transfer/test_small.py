"""Small backups in batches: wrong bytes of one of them are never archived."""

import random
from pathlib import Path

from archiver import Archive, PullOptions, TransferOptions, pull
from archiver.emulator import Faults
from archiver.retry import RetryPolicy
from tests.conftest import INSTANCE, EmulatorMaker, everything, source_of

FILES = 24
PATIENT = RetryPolicy(attempts=15, first_wait=0.001, max_wait=0.002)


async def test_what_was_flipped_on_the_way_is_fetched_again(
    files: Path, emulator_of: EmulatorMaker, archive: Archive
) -> None:
    """Files without a checksum of their own: the declared CRC-64 alone tells."""
    originals = []
    for number in range(FILES):
        data = b"*1\r\n$4\r\nPING\r\n" + random.Random(number).randbytes(3000 + number)
        (files / INSTANCE / f"{number}.aof").write_bytes(data)
        originals.append(data)
    emulator = await emulator_of(files, faults=Faults(corrupt=0.3, seed=1))
    async with source_of(emulator) as source:
        summary = await pull(
            source,
            archive,
            [everything(need_aof=True)],
            PullOptions(transfer=TransferOptions(retry=PATIENT)),
        )
    assert summary.failures == []
    assert emulator.tally.object_requests > FILES
    kept = [path.read_bytes() for path in Path(str(archive.store)).rglob("*.aof")]
    assert sorted(kept) == sorted(originals)
