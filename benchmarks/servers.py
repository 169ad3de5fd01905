"""What a benchmark downloads from: nginx on loopback, and the emulator's API that points to it."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

INSTANCE = "r-bench"
KEY = {"ALIBABA_CLOUD_ACCESS_KEY_ID": "LTAIbench", "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "bench"}


@dataclass(frozen=True, slots=True)
class Site:
    """Files behind nginx, ``base`` and a name each; ``endpoint`` lists them as backups."""

    base: str
    endpoint: str
    files: tuple[Path, ...]
    certificate: Path | None
    log: Path

    def sent_since(self) -> int:
        """Bytes of bodies that nginx sent since this was last asked."""
        time.sleep(0.2)  # nginx logs a request when its connection is gone
        sent = sum(int(line) for line in self.log.read_text().split())
        os.truncate(self.log, 0)
        return sent

    @property
    def size(self) -> int:
        return sum(path.stat().st_size for path in self.files)


@contextlib.contextmanager
def serve(
    files: list[Path], work: Path, *, https: bool = False, limits: str = "", http: str = ""
) -> Iterator[Site]:
    """nginx over the folder of ``files``; ``limits`` goes into its location."""
    port = free_port()
    certificate = make_certificate(work) if https else None
    config = work / "nginx.conf"
    log = work / "access.log"
    log.touch()
    text = nginx_config(work, files[0].parent, port, limits, certificate)
    config.write_text(text.replace("HTTP_CONFIG", http))
    nginx = subprocess.Popen(
        ["nginx", "-c", str(config), "-p", str(work), "-e", str(work / "error.log")]
    )
    base = f"{'https' if https else 'http'}://localhost:{port}/"
    try:
        wait_for(port)
        with list_as_backups(files, work, base) as endpoint:
            yield Site(base, endpoint, tuple(files), certificate, log)
    finally:
        nginx.terminate()
        nginx.wait()


def nginx_config(work: Path, root: Path, port: int, limits: str, certificate: Path | None) -> str:
    tls = ""
    if certificate is not None:
        tls = (
            f"ssl_certificate {certificate}; ssl_protocols TLSv1.3; "
            f"ssl_certificate_key {certificate.with_suffix('.key')};"
        )
    return f"""
        {"user root;" if os.geteuid() == 0 else ""} pid {work}/nginx.pid;
        daemon off; worker_processes 2;
        events {{ worker_connections 1024; }}
        http {{
            log_format bytes $body_bytes_sent; access_log {work}/access.log bytes;
            HTTP_CONFIG sendfile on; tcp_nopush on; keepalive_requests 100000;
            client_body_temp_path {work}/body; proxy_temp_path {work}/proxy;
            fastcgi_temp_path {work}/f; uwsgi_temp_path {work}/u; scgi_temp_path {work}/s;
            server {{
                listen 127.0.0.1:{port}{" ssl" if certificate else ""}; {tls}
                location / {{ root {root}; {limits} }}
            }}
        }}"""


@contextlib.contextmanager
def list_as_backups(files: list[Path], work: Path, base: str) -> Iterator[str]:
    """The emulator lists the files; their URLs lead to nginx. Gives its endpoint."""
    folder = work / "vendor" / INSTANCE
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for path in files:
        (folder / path.name).hardlink_to(path)  # the emulator follows no link out of its folder
    overrides = {path.name: {"BackupDownloadURL": f"{base}{path.name}"} for path in files}
    for fields in overrides.values():
        fields["BackupIntranetDownloadURL"] = ""
    (folder / "backups.json").write_text(json.dumps(overrides))
    emulator = subprocess.Popen(
        [sys.executable, "-m", "archiver", "emulate", str(work / "vendor"), "--port", "0"],
        env={**os.environ, **KEY},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        ready = emulator.stdout.readline() if emulator.stdout else ""
        yield re.findall(r"--endpoint (\S+)", ready)[0]
    finally:
        emulator.terminate()
        emulator.wait()


def make_certificate(work: Path) -> Path:
    """A certificate for localhost that signs itself."""
    path = work / "cert.pem"
    if not path.exists():
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
             "-nodes", "-days", "30", "-subj", "/CN=localhost", "-addext",
             "subjectAltName=DNS:localhost", "-keyout", path.with_suffix(".key"), "-out", path],
            check=True, capture_output=True,
        )  # fmt: skip
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise SystemExit("nginx did not start")
