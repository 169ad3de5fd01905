"""Commands on a bucket whose listings are truncated or invalid: none of them reports success."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from archiver.emulator import Emulator
from examples.sample_rdb import write_rdb
from tests.bucket.conftest import PREFIX
from tests.bucket.test_pull import archive_in, bring
from tests.cli.conftest import Run
from tests.conftest import INSTANCE
from tests.servers.gateway import Answer, Fault, Gateway, Request
from tests.servers.seaweedfs import SeaweedFS

XHTML = b'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><p>Log in</p></html>'


def page(_: Request, answer: Answer) -> Answer:
    return replace(answer, fields=[("Content-Type", "text/html")], body=XHTML)


def empty(_: Request, answer: Answer) -> Answer:
    return replace(answer, body=b"")


def cut(_: Request, answer: Answer) -> Answer:
    """Truncated after the first key, without a continuation token."""
    first = re.search(rb"<Contents>.*?</Contents>", answer.body)
    body = re.sub(rb"<Contents>.*</Contents>", first[0] if first else b"", answer.body)
    body = body.replace(b"<IsTruncated>false<", b"<IsTruncated>true<")
    return replace(answer, body=re.sub(rb"<KeyCount>\d+<", b"<KeyCount>1<", body))


def fewer(_: Request, answer: Answer) -> Answer:
    """The last keys are missing, but not the KeyCount."""
    first = re.search(rb"<Contents>.*?</Contents>", answer.body)
    body = re.sub(rb"<Contents>.*</Contents>", first[0] if first else b"", answer.body)
    return replace(answer, body=body)


@pytest.fixture
def originals(files: Path) -> dict[str, bytes]:
    """Three small files."""
    return {
        f"{day}": write_rdb(files / INSTANCE / f"small_202611{day}021500.rdb", 20_000, day)
        for day in (10, 11, 12)
    }


@pytest.mark.timeout(300)  # it starts many processes
@pytest.mark.parametrize("change", [page, empty, cut, fewer])
async def test_nobody_is_content(
    emulator: Emulator, seaweed: SeaweedFS, gate: Gateway, bucket: str,
    originals: dict[str, bytes], run: Run, tmp_path: Path,
    change: Callable[[Request, Answer], Answer],
) -> None:  # fmt: skip
    assert (await bring(emulator, archive_in(bucket, seaweed.endpoint))).failures == []
    place, home = f"s3://{bucket}/{PREFIX}", str(tmp_path / "home")
    at = ("--s3-endpoint", gate.endpoint)
    assert (await run("copy", place, home, *at)).code == 0
    gate.add(Fault("ListObjectsV2", None, change=change))
    for command in (
        ("verify", place), ("ls", place), ("copy", place, str(tmp_path / "second")),
        ("copy", home, place), ("copy", "--diff", home, place),
        ("copy", "--diff", place, home),
    ):  # fmt: skip
        done = await run(*command, *at)
        assert done.code == 6, (command, done.err)
        assert "Traceback" not in done.err
        assert f"s3://{bucket}/" in done.err
