"""The S3 server that other tests rely on: that it is one, and what it checks."""

import base64
import contextlib
import hashlib
import os
import ssl
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.servers.seaweedfs import READER, SeaweedFS, seaweedfs


def test_objects_outlive_a_kill(seaweed: SeaweedFS, bucket: str) -> None:
    client = seaweed.client()
    client.put_object(Bucket=bucket, Key="a/b", Body=b"one")
    upload = client.create_multipart_upload(Bucket=bucket, Key="c")["UploadId"]
    part = {"Bucket": bucket, "Key": "c", "UploadId": upload, "PartNumber": 1}
    etag = client.upload_part(**part, Body=b"two")["ETag"]
    before = seaweed.pid
    seaweed.kill()
    with pytest.raises(BotoCoreError):
        client.list_buckets()
    seaweed.start()
    assert seaweed.pid != before
    assert seaweed.content(bucket, "a/b") == b"one"
    assert seaweed.uploads(bucket) == [("c", upload)]
    client.complete_multipart_upload(
        Bucket=bucket,
        Key="c",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]},
    )
    assert seaweed.objects(bucket) == {"a/b": 3, "c": 3}
    assert seaweed.uploads(bucket) == []


def test_a_reader_may_not_write(seaweed: SeaweedFS, bucket: str) -> None:
    reader = seaweed.client(READER)
    assert reader.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    with pytest.raises(ClientError, match="AccessDenied"):
        reader.put_object(Bucket=bucket, Key="a", Body=b"x")
    with pytest.raises(ClientError, match="NoSuchBucket"):
        seaweed.client().put_object(Bucket=f"{bucket}-none", Key="a", Body=b"x")


def test_a_wrong_checksum_is_refused(seaweed: SeaweedFS, bucket: str) -> None:
    md5 = base64.b64encode(hashlib.md5(b"another").digest()).decode()
    for checksum in ({"ContentMD5": md5}, {"ChecksumCRC64NVME": "M3eFcAZSQlc="}):
        with pytest.raises(ClientError, match="BadDigest"):
            seaweed.client().put_object(Bucket=bucket, Key="a", Body=b"one", **checksum)
    assert seaweed.objects(bucket) == {}


def test_conditions(seaweed: SeaweedFS, bucket: str) -> None:
    client = seaweed.client()
    client.put_object(Bucket=bucket, Key="a", Body=b"one", IfNoneMatch="*")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        client.put_object(Bucket=bucket, Key="a", Body=b"two", IfNoneMatch="*")
    assert seaweed.content(bucket, "a") == b"one"


def test_https(seaweed_tls: SeaweedFS, bucket_tls: str) -> None:
    seaweed_tls.client().put_object(Bucket=bucket_tls, Key="a", Body=b"one")
    assert seaweed_tls.content(bucket_tls, "a") == b"one"
    with pytest.raises(urllib.error.URLError) as caught:
        urllib.request.urlopen(seaweed_tls.endpoint)
    assert isinstance(caught.value.reason, ssl.SSLCertVerificationError)


def test_no_room(tmp_path: Path) -> None:
    """It does not report that; tests that need the error put a gateway before it."""
    with seaweedfs(tmp_path, volumes=2, volume_megabytes=1) as server:
        client = server.client()
        server.make_bucket("full")
        with contextlib.suppress(ClientError):
            for number in range(8):
                client.put_object(Bucket="full", Key=f"{number}", Body=os.urandom(1_000_000))
        with pytest.raises(ClientError, match="InternalError"):
            client.put_object(Bucket="full", Key="small", Body=b"x")
        assert set(server.objects("full").values()) == {1_000_000}


def test_a_part_that_is_uploaded_again(seaweed: SeaweedFS, bucket: str) -> None:
    """It is listed twice, and the ETag says which one counts."""
    client = seaweed.client()
    named = {"Bucket": bucket, "Key": "k"}
    named["UploadId"] = client.create_multipart_upload(**named)["UploadId"]
    etags = [
        client.upload_part(**named, PartNumber=1, Body=body)["ETag"] for body in (b"old", b"new")
    ]
    listed = client.list_parts(**named)["Parts"]
    assert [part["PartNumber"] for part in listed] == [1, 1]
    assert {part["ETag"] for part in listed} == set(etags)
    parts = [{"PartNumber": 1, "ETag": etags[1]}]
    for _ in range(2):
        client.complete_multipart_upload(**named, MultipartUpload={"Parts": parts})
    assert seaweed.content(bucket, "k") == b"new"
    assert seaweed.uploads(bucket) == []
