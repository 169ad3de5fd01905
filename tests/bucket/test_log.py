"""The log of a pull into a bucket of a real S3 server: each try of its requests is in it."""

import json
from pathlib import Path

import pytest

from examples.sample_rdb import write_rdb
from tests.bucket.conftest import PREFIX
from tests.cli.conftest import Run
from tests.cli.test_pull import PULL
from tests.conftest import INSTANCE, KEY_SECRET
from tests.servers import gateway as gates
from tests.servers.gateway import Gateway
from tests.servers.seaweedfs import WRITER


@pytest.fixture
def pulling(files: Path, bucket: str, gate: Gateway) -> tuple[str, ...]:
    write_rdb(files / INSTANCE / "a_20261124021500.rdb", 6 * 2**20)
    where = ("--to", f"s3://{bucket}/{PREFIX}", "--s3-endpoint", gate.endpoint)
    return (*PULL[:-2], *where, "-vv", "--log-file", "run.log", "--log-format", "json")


async def test_a_retry_of_the_s3_client(
    pulling: tuple[str, ...], gate: Gateway, bucket: str, run: Run, environ: dict[str, str],
    tmp_path: Path,
) -> None:  # fmt: skip
    gate.add(gates.slow_down(1, kind="UploadPart"))
    keys = {"AWS_ACCESS_KEY_ID": WRITER.key_id, "AWS_SECRET_ACCESS_KEY": WRITER.secret}
    result = await run(*pulling, **keys)
    assert result.code == 0, result.err
    text = (tmp_path / "run.log").read_text()
    sent = [one for one in map(json.loads, text.splitlines()) if one["event"] == "request"]
    parts = [one for one in sent if one["action"] == "UploadPart"]
    assert [one["status"] for one in parts].count(503) == 1
    [refused] = [one for one in parts if one["status"] == 503]
    [again] = [one for one in parts if one["attempt"] == 2]
    assert (again["status"], again["path"]) == (200, refused["path"])
    assert ", try 2" in again["message"]
    assert max(one["bytes"] for one in sent if one["method"] == "PUT") == 6 * 2**20
    assert all(one["path"].startswith(f"/{bucket}") and "?" not in one["path"] for one in parts)
    actions = {one["action"] for one in sent}
    assert {"DescribeBackups", "CreateMultipartUpload", "PutObject"} <= actions
    for known in (KEY_SECRET, WRITER.secret, WRITER.key_id, "Signature", "AWS4", "uploadId"):
        assert known not in text
        assert known not in result.err


async def test_a_bucket_that_is_waited_for(
    pulling: tuple[str, ...], gate: Gateway, run: Run, tmp_path: Path
) -> None:
    """Is said in the log, also when stderr is quiet."""
    gate.add(gates.silence())
    keys = {"AWS_ACCESS_KEY_ID": WRITER.key_id, "AWS_SECRET_ACCESS_KEY": WRITER.secret}
    result = await run(*pulling, "--quiet", "--retry-for", "2s", **keys)
    assert result.code == 6, result.err
    log = [json.loads(line) for line in (tmp_path / "run.log").read_text().splitlines()]
    [waiting] = [line for line in log if line["event"] == "waiting_for_bucket"]
    assert waiting["level"] == "WARNING"
    assert "waiting for the bucket" not in result.err
    failed = [line for line in log if line["event"] == "request" and line["status"] is None]
    assert len(failed) >= 3
    assert {line["error"] for line in failed} == {"ConnectionClosedError"}
    assert log[-1]["exit_code"] == 6
