"""The gateway that other tests rely on, between a plain boto client and the S3 server."""

import hashlib
import io
from collections.abc import Iterator
from typing import Any

import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.servers import gateway as g
from tests.servers.gateway import Gateway
from tests.servers.seaweedfs import REGION, WRITER, SeaweedFS, make_client

PART = 5 * 1024 * 1024
DATA = bytes(range(256)) * (PART // 256) + b"the end"


@pytest.fixture
def gate(seaweed: SeaweedFS) -> Iterator[Gateway]:
    with g.gateway(seaweed.port) as gate:
        yield gate


@pytest.fixture
def client(gate: Gateway) -> Iterator[Any]:
    client = make_client(gate.endpoint, WRITER)
    yield client
    client.close()


def upload(client: Any, bucket: str, key: str = "k") -> tuple[dict[str, str], list[dict[str, Any]]]:
    """An upload of DATA in two parts, not completed: its identification and its parts."""
    named = {"Bucket": bucket, "Key": key}
    named["UploadId"] = client.create_multipart_upload(**named)["UploadId"]
    parts = []
    for number, data in enumerate((DATA[:PART], DATA[PART:]), 1):
        etag = client.upload_part(**named, PartNumber=number, Body=data)["ETag"]
        parts.append({"PartNumber": number, "ETag": etag})
    return named, parts


def test_it_passes_everything_on(
    client: Any, gate: Gateway, seaweed: SeaweedFS, bucket: str
) -> None:
    named, parts = upload(client, bucket, "a b/ü+~")
    client.complete_multipart_upload(**named, MultipartUpload={"Parts": parts})
    client.put_object(Bucket=bucket, Key="empty", Body=b"")
    assert seaweed.content(bucket, "a b/ü+~") == DATA
    assert client.get_object(Bucket=bucket, Key="a b/ü+~")["Body"].read() == DATA
    assert client.head_object(Bucket=bucket, Key="empty")["ContentLength"] == 0
    client.delete_object(Bucket=bucket, Key="empty")
    assert client.list_objects_v2(Bucket=bucket)["KeyCount"] == 1
    assert gate.counts == {
        "CreateMultipartUpload": 1, "UploadPart": 2, "CompleteMultipartUpload": 1, "PutObject": 1,
        "GetObject": 1, "HeadObject": 1, "DeleteObject": 1, "ListObjectsV2": 1,
    }  # fmt: skip
    assert gate.bytes_up["UploadPart"] == gate.bytes_down["GetObject"] == len(DATA)
    assert [request.part for request, _ in gate.requests if request.part] == [1, 2]
    assert {status for _, status in gate.requests} == {200, 204}


def test_a_flipped_byte(client: Any, gate: Gateway, seaweed: SeaweedFS, bucket: str) -> None:
    fault = gate.add(g.flip_byte(at=100_000, part=1))
    named, parts = upload(client, bucket)
    assert fault.met == 1
    assert parts[0]["ETag"] != f'"{hashlib.md5(DATA[:PART]).hexdigest()}"'
    client.complete_multipart_upload(**named, MultipartUpload={"Parts": parts})
    stored = seaweed.content(bucket, "k")
    assert [n for n in range(len(DATA)) if stored[n] != DATA[n]] == [100_000]
    gate.add(g.flip_download(at=3))
    assert client.get_object(Bucket=bucket, Key="k")["Body"].read()[3] == DATA[3] ^ 0xFF


def test_cut_connections(client: Any, gate: Gateway, seaweed: SeaweedFS, bucket: str) -> None:
    gate.add(g.cut_upload(after=1_000_000, kind="PutObject"), g.cut_download(after=10))
    with pytest.raises(BotoCoreError):
        client.put_object(Bucket=bucket, Key="k", Body=DATA)
    assert seaweed.objects(bucket) == {}
    client.put_object(Bucket=bucket, Key="k", Body=DATA)
    with pytest.raises(BotoCoreError):
        client.get_object(Bucket=bucket, Key="k")["Body"].read()
    gate.add(g.drop_answer("DeleteObject"))
    with pytest.raises(BotoCoreError):
        client.delete_object(Bucket=bucket, Key="k")
    assert seaweed.objects(bucket) == {}


@pytest.mark.parametrize("early", [False, True])
def test_errors(client: Any, gate: Gateway, bucket: str, early: bool) -> None:
    gate.add(g.slow_down(2, early=early), g.no_space(1), g.refuse(507, "Full", Retry_After="7"))
    for code in ("SlowDown", "SlowDown", "QuotaExceeded"):
        with pytest.raises(ClientError, match=code):
            client.put_object(Bucket=bucket, Key="k", Body=DATA)
    with pytest.raises(ClientError, match="Full") as caught:
        client.put_object(Bucket=bucket, Key="k", Body=DATA)
    assert caught.value.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "7"
    client.put_object(Bucket=bucket, Key="k", Body=DATA)


def test_headers_that_are_not_implemented(client: Any, gate: Gateway, bucket: str) -> None:
    gate.add(g.refuse_headers("If-None-Match", "x-amz-checksum-*", "Content-MD5"))
    client.put_object(Bucket=bucket, Key="k", Body=b"x")
    for options in ({"IfNoneMatch": "*"}, {"ChecksumCRC32": "AAAAAA=="}, {"ContentMD5": "x"}):
        with pytest.raises(ClientError, match="NotImplemented"):
            client.put_object(Bucket=bucket, Key="k", Body=b"x", **options)


def test_trailers_are_refused_as_oss_does(
    seaweed: SeaweedFS, seaweed_tls: SeaweedFS, bucket: str
) -> None:
    """A client with default settings sends them over https."""
    with g.gateway(seaweed.port, seaweed_tls.directory) as gate:
        client = botocore.session.Session().create_client(
            "s3",
            endpoint_url=gate.endpoint,
            region_name=REGION,
            aws_access_key_id=WRITER.key_id,
            aws_secret_access_key=WRITER.secret,
            verify=str(seaweed_tls.ca),
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
        )
        client.put_object(Bucket=bucket, Key="k", Body=io.BytesIO(DATA))
        assert seaweed.content(bucket, "k") == DATA
        gate.add(g.refuse_chunked())
        with pytest.raises(ClientError, match="aws-chunked"):
            client.put_object(Bucket=bucket, Key="k", Body=io.BytesIO(DATA))
        client.close()


def test_completing(client: Any, gate: Gateway, seaweed: SeaweedFS, bucket: str) -> None:
    named, parts = upload(client, bucket)
    complete = {**named, "MultipartUpload": {"Parts": parts}}
    gate.add(g.error_in_200())
    with pytest.raises(ClientError, match="InternalError"):
        client.complete_multipart_upload(**complete)
    assert seaweed.objects(bucket) == {}
    gate.add(g.drop_answer("CompleteMultipartUpload"))
    with pytest.raises(BotoCoreError):
        client.complete_multipart_upload(**complete)
    assert seaweed.objects(bucket) == {"k": len(DATA)}
    gate.add(g.empty_etag())
    assert client.complete_multipart_upload(**complete).get("ETag", "") == ""


def test_parts_that_are_listed_twice(client: Any, gate: Gateway, bucket: str) -> None:
    gate.add(g.duplicate_parts())
    named, parts = upload(client, bucket)
    listed = client.list_parts(**named)["Parts"]
    assert [part["PartNumber"] for part in listed] == [1, 1, 2, 2]
    assert [part["ETag"] for part in listed[1::2]] == [part["ETag"] for part in parts]


def test_a_server_that_dies_in_the_middle(
    client: Any, gate: Gateway, seaweed: SeaweedFS, bucket: str
) -> None:
    named, _ = upload(client, bucket)
    seaweed.kill()
    with pytest.raises(BotoCoreError):
        client.list_parts(**named)
    seaweed.start()
    assert len(client.list_parts(**named)["Parts"]) == 2
