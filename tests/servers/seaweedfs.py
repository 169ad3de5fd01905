"""A real S3 server: SeaweedFS, all of it in one process, on ports of its own on loopback.

What 4.48 does otherwise than S3, as far as it matters here: a part that is uploaded again stands
in ListParts twice, and completing takes the one whose ETag is given; completing twice is answered
with 200 twice; If-None-Match on CompleteMultipartUpload lets several racers through (on PutObject
one, who may wait for seconds); x-amz-content-sha256 is not compared with the body; a listing is
sorted folder by folder (``x/y`` before ``x-1/y``); no room, and a quota
that was passed, is 500 InternalError. ``shell("lock", "s3.bucket.quota …", …)`` sets quotas.
"""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

WEED = Path(sysconfig.get_path("scripts")) / "weed"
REGION = "us-east-1"
# Below what the kernel hands out to connections, so that a port is still free after a restart.
_PORTS = range(20_000, 22_700)
# The workers inside look for the admin server's gRPC port here, whatever it was told.
_ADMIN_GRPC = 10_000
_LISTENERS = (
    "master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port",
    "filer.port.grpc", "s3.port", "s3.port.grpc", "admin.port",
)  # fmt: skip
_READY_SECONDS = 60.0
# A bucket of the server's own, with a volume of its own.
_PROOF = "proof-of-readiness"


@dataclass(frozen=True, slots=True)
class Keys:
    """An access key; the secrets here open nothing but a test's own server."""

    key_id: str
    secret: str


WRITER = Keys("AKIAWRITERWRITERWRIT", "secret-of-the-writer")
READER = Keys("AKIAREADERREADERREAD", "secret-of-the-reader")
_ACTIONS = {WRITER: ["Admin", "Read", "Write", "List", "Tagging"], READER: ["Read", "List"]}


class SeaweedFS:
    """A server over ``directory``; ``pid`` is None while it is down."""

    def __init__(self, directory: Path, *, tls: bool, volumes: int, volume_megabytes: int) -> None:
        self.directory: Final = directory
        self.ca: Final = _make_certificates(directory) if tls else None
        self._volumes: Final = volumes
        self._volume_megabytes: Final = volume_megabytes
        self._ports: Mapping[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._clients: dict[Keys, Any] = {}
        (directory / "data").mkdir(parents=True, exist_ok=True)
        identities = [
            {
                "name": keys.key_id,
                "credentials": [{"accessKey": keys.key_id, "secretKey": keys.secret}],
                "actions": actions,
            }
            for keys, actions in _ACTIONS.items()
        ]
        (directory / "s3.json").write_text(json.dumps({"identities": identities}))

    @property
    def port(self) -> int:
        return self._ports["s3.port"]

    @property
    def endpoint(self) -> str:
        return f"{'https' if self.ca else 'http'}://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    @property
    def resident(self) -> int:
        """Memory of the server, in bytes."""
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def start(self) -> None:
        """Start, again on the same ports and data; returns when requests are answered."""
        if self._ports:
            self._start()
            return
        for _ in range(3):
            self._ports = _ports()
            with contextlib.suppress(ChildProcessError):
                self._start()
                return
        raise ChildProcessError(f"SeaweedFS does not start:\n{self.log[-3000:]}")

    def kill(self) -> None:
        """SIGKILL: asked nicely, it takes its time under load."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            for port in self._ports.values():  # it puts these nowhere else
                for left in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"):
                    left.unlink(missing_ok=True)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Takes connections and answers nothing."""
        if self._process is None:
            raise RuntimeError("the server is down")
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.kill()
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def client(self, keys: Keys = WRITER) -> Any:
        """A plain boto client; blocks."""
        if keys not in self._clients:
            self._clients[keys] = make_client(self.endpoint, keys, self.ca)
        return self._clients[keys]

    def make_bucket(self, name: str, *, object_lock: bool = False) -> str:
        options = {"ObjectLockEnabledForBucket": True} if object_lock else {}
        self.client().create_bucket(Bucket=name, **options)
        return name

    def remove_bucket(self, name: str) -> None:
        """With all that is in it; its volumes are free for others after that."""
        self.client().delete_bucket(Bucket=name)

    def objects(self, bucket: str, prefix: str = "") -> dict[str, int]:
        """Sizes in bytes by key, hidden ones too, in the server's order."""
        pages = self.client().get_paginator("list_objects_v2")
        return {
            item["Key"]: item["Size"]
            for page in pages.paginate(Bucket=bucket, Prefix=prefix)
            for item in page.get("Contents", [])
        }

    def uploads(self, bucket: str) -> list[tuple[str, str]]:
        """Key and id of each multipart upload that is under way."""
        pages = self.client().get_paginator("list_multipart_uploads")
        return [
            (item["Key"], item["UploadId"])
            for page in pages.paginate(Bucket=bucket)
            for item in page.get("Uploads", [])
        ]

    def content(self, bucket: str, key: str) -> bytes:
        body = self.client().get_object(Bucket=bucket, Key=key)["Body"]
        with contextlib.closing(body):
            return bytes(body.read())

    def shell(self, *commands: str) -> str:
        """The administrator's shell; what it printed."""
        addresses = [
            f"-{name}=127.0.0.1:{self._ports[f'{name}.port']}.{self._ports[f'{name}.port.grpc']}"
            for name in ("master", "filer")
        ]
        done = subprocess.run(
            [WEED, "-logtostderr=true", "shell", *addresses],
            input="\n".join(commands) + "\n",
            capture_output=True,
            check=True,
            text=True,
            timeout=60,
            env=self._environment,
            cwd=self.directory,
        )
        return done.stdout + done.stderr

    def _start(self) -> None:
        """Raises ChildProcessError when it ends instead, or is not ready in time."""
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, cwd=self.directory, env=self._environment
            )
        until = time.monotonic() + _READY_SECONDS
        while self._process.poll() is None and time.monotonic() < until:
            with contextlib.suppress(BotoCoreError, ClientError):
                self._prove()
                return
            time.sleep(0.05)
        self.close()
        raise ChildProcessError(f"SeaweedFS does not start:\n{self.log[-3000:]}")

    def _prove(self) -> None:
        """Read or write an object: after a restart, buckets are listed before the server has
        found the volumes that hold what is in them."""
        try:
            self.content(_PROOF, "k")
        except ClientError as error:
            if error.response["Error"]["Code"] not in {"NoSuchBucket", "NoSuchKey"}:
                raise
            with contextlib.suppress(ClientError):
                self.make_bucket(_PROOF)
            self.client().put_object(Bucket=_PROOF, Key="k", Body=b"proof")

    @property
    def _command(self) -> list[str | Path]:
        tls = ["-s3.cert.file=server.pem", "-s3.key.file=server.key"] if self.ca else []
        return [
            WEED, "-logtostderr=true", "mini", "-dir=data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            "-master.telemetry=false", "-webdav=false", "-admin.ui=false",
            "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false",
            "-s3.config=s3.json", "-s3.localSocket=s3.sock", "-filer.localSocket=filer.sock",
            f"-volume.max={self._volumes + 1}",
            f"-master.volumeSizeLimitMB={self._volume_megabytes}",
            *(f"-{name}={port}" for name, port in self._ports.items()), *tls,
        ]  # fmt: skip

    @property
    def _environment(self) -> dict[str, str]:
        """Nothing of the machine's: the server reads credentials and settings from there, too.

        Go's collector took 60 % of the server's CPU at its own pace (5 MiB put: 130 ms, and 50 ms
        at this one); the limit keeps the memory where it was."""
        return {
            "HOME": str(self.directory), "PATH": os.defpath,
            "GOMEMLIMIT": "384MiB", "GOGC": "300",
        }  # fmt: skip


@contextlib.contextmanager
def seaweedfs(
    directory: Path, *, tls: bool = False, volumes: int = 400, volume_megabytes: int = 64
) -> Iterator[SeaweedFS]:
    """A running server; its identities are WRITER and READER. Every bucket takes a volume or
    more, and a volume takes space on disk only as it fills."""
    server = SeaweedFS(directory, tls=tls, volumes=volumes, volume_megabytes=volume_megabytes)
    server.start()
    try:
        yield server
    finally:
        server.close()


def make_client(endpoint: str, keys: Keys, ca: Path | None = None) -> Any:
    """A boto client that sends no checksums of its own accord and tries once; blocks."""
    return botocore.session.Session().create_client(
        "s3",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=keys.key_id,
        aws_secret_access_key=keys.secret,
        verify=str(ca) if ca else None,
        config=Config(
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            connect_timeout=5,
            read_timeout=30,
        ),
    )


def free_ports(names: tuple[str, ...]) -> dict[str, int]:
    """A port of its own for each name; nobody listened there a moment ago."""
    ports: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(ports) < len(names):
            probe = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", random.choice(_PORTS)))
                ports.append(probe.getsockname()[1])
    return dict(zip(names, ports, strict=True))


def _ports() -> dict[str, int]:
    ports = free_ports(_LISTENERS)
    return {**ports, "admin.port.grpc": ports["admin.port"] + _ADMIN_GRPC}


def _make_certificates(directory: Path) -> Path:
    """A server's certificate for loopback; returns the CA to trust."""
    directory.mkdir(parents=True, exist_ok=True)
    import trustme  # the demo has no use for it

    ca = trustme.CA()
    server = ca.issue_cert("localhost", "127.0.0.1")
    server.private_key_pem.write_to_path(directory / "server.key")
    for number, certificate in enumerate(server.cert_chain_pems):
        certificate.write_to_path(directory / "server.pem", append=number > 0)
    ca.cert_pem.write_to_path(directory / "ca.pem")
    return directory / "ca.pem"
