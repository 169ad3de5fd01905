"""Faults of AWS's credential chain: each is named, with what to do about it."""

import asyncio
import fcntl
import os
import pty
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from archiver.errors import ArchiverError, StoreError, StoreForbidden, UsageError
from archiver.stores.s3 import credentials
from archiver.stores.s3.bucket import Bucket
from archiver.stores.s3.credentials import prompt, shared_session
from archiver.stores.s3.options import S3Options
from archiver.stores.s3.outages import ONE_TRY, OutageBudget
from examples.sample_rdb import rdb
from tests.archive.sample import put_standard
from tests.bucket.conftest import PREFIX
from tests.servers.oddstore import BUCKET, OddStore

ROLE = "arn:aws:iam::123456789012:role/backup"
SSO = """[profile a]
sso_start_url = https://x.awsapps.com/start
sso_region = us-east-1
sso_account_id = 123456789012
sso_role_name = R
"""
SESSION = SSO.replace("sso_start_url = https://x.awsapps.com/start\nsso_region = us-east-1\n", "")
SESSION = f"""{SESSION}sso_session = s
[sso-session s]
sso_start_url = https://x.awsapps.com/start
sso_region = us-east-1
"""
ASSUMED = f"""[profile a]
region = us-east-1
role_arn = {ROLE}
source_profile = b
[profile b]
aws_access_key_id = x
aws_secret_access_key = y
"""
MFA = ASSUMED.replace("source", "mfa_serial = arn:aws:iam::123456789012:mfa/me\nsource", 1)


BY_SOURCE = ASSUMED.replace(
    "aws_access_key_id = x\naws_secret_access_key = y",
    "credential_process = sh -c 'echo sealed >&2; exit 4'",
)


def by_process(command: str) -> str:
    return f"[profile a]\ncredential_process = {command}\n"


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets AWS's configuration files and variables, and removes all others."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))

    def set_up(config: str | bytes, **given: str) -> None:
        data = config.encode() if isinstance(config, str) else config
        (tmp_path / "config").write_bytes(data)
        if b"[profile a]" in data:
            monkeypatch.setenv("AWS_PROFILE", "a")
        for name, value in given.items():
            monkeypatch.setenv(name, value)

    return set_up


@contextmanager
def sts(*, allows: bool) -> Iterator[tuple[str, list[dict[str, list[str]]]]]:
    """A security token service, and the requests that it got."""
    asked: list[dict[str, list[str]]] = []
    keys = (
        "<AccessKeyId>ASIA</AccessKeyId><SecretAccessKey>s</SecretAccessKey>"
        "<SessionToken>t</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>"
    )

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()))
            action = asked[-1]["Action"][0]
            body = (
                f"<{action}Response><{action}Result><Credentials>{keys}</Credentials>"
                f"</{action}Result></{action}Response>"
                if allows
                else "<ErrorResponse><Error><Code>AccessDenied</Code><Message>User me is not "
                "authorized to perform: sts:AssumeRole</Message></Error></ErrorResponse>"
            ).encode()
            self.send_response(200 if allows else 403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("config", "given", "kind", "said"),
    [
        (SSO, {}, StoreForbidden, ["does not exist", "(aws sso login --profile a)"]),
        (SESSION, {}, StoreForbidden, ["does not exist", "(aws sso login --profile a)"]),
        ("", {"AWS_WEB_IDENTITY_TOKEN_FILE": "/nope/token", "AWS_ROLE_ARN": ROLE}, StoreForbidden,
         ["'/nope/token'", "AWS_WEB_IDENTITY_TOKEN_FILE"]),
        (by_process("sh -c 'echo sealed >&2; exit 3' --secret"), {}, StoreForbidden,
         ["custom-process: it ended with status 3", "credential_process: sh)"]),
        (BY_SOURCE, {}, StoreForbidden,
         ["custom-process: it ended with status 4", "credential_process: sh)"]),
        (by_process("""echo '{"Version": "sealed"}'"""), {}, StoreForbidden,
         ["custom-process: Unsupported version"]),
        (by_process("""echo '{"Version": 1, "sealed": 2}'"""), {}, StoreForbidden,
         ["Missing required key in response: 'AccessKeyId'"]),
        (by_process("/nope/vault --secret"), {}, StoreForbidden, ["'/nope/vault'"]),
        (by_process("echo hello"), {}, StoreForbidden, ["credential_process: echo)"]),
        (by_process("echo []"), {}, StoreForbidden, ["credential_process: echo)"]),
        (by_process("sh -c 'x"), {}, StoreForbidden, ["No closing quotation"]),
        ("", {"AWS_ACCESS_KEY_ID": "x"}, StoreForbidden, ["missing: AWS_SECRET_ACCESS_KEY"]),
        (MFA, {}, StoreForbidden, ["arn:aws:iam::123456789012:mfa/me", "no terminal"]),
        ("[profile a]\nrole_arn\n", {}, UsageError, ["parse config file", "/config"]),
        (b"\xff\xfe\x00[profile a]", {}, UsageError, ["parse config file", "/config"]),
        ("", {"AWS_PROFILE": "nope"}, UsageError, ["profile (nope)"]),
        (ASSUMED.replace("region", "#"), {"AWS_ENDPOINT_URL_STS": "http://127.0.0.1:1"},
         UsageError, ["region", "AWS_DEFAULT_REGION"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(
    configured: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    config: str | bytes,
    given: dict[str, str],
    kind: type[ArchiverError],
    said: list[str],
) -> None:
    configured(config, **given)
    real = os.open

    def no_terminal(path: str, *args: int, **more: int) -> int:
        return real("/nope" if path == "/dev/tty" else path, *args, **more)

    monkeypatch.setattr(os, "open", no_terminal)
    with pytest.raises(kind) as caught:
        shared_session("s3://b")
    for words in ("s3://b: ", *said) if "no terminal" not in said else said:
        assert words in str(caught.value)
    assert "--secret" not in str(caught.value)
    assert "sealed" not in str(caught.value)


def test_a_role_that_may_not_be_assumed(configured: Callable[..., None]) -> None:
    with sts(allows=False) as (endpoint, asked):
        configured(ASSUMED, AWS_ENDPOINT_URL_STS=endpoint)
        with pytest.raises(StoreForbidden) as caught:
            shared_session("s3://b")
    assert [one["RoleArn"] for one in asked] == [[ROLE]]
    assert "User me is not authorized" in str(caught.value)
    assert f"check that this identity may assume {ROLE}" in str(caught.value)


def test_a_token_that_is_not_believed(configured: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("token")
    with sts(allows=False) as (endpoint, _):
        configured(
            "[default]\nregion = us-east-1\n",
            AWS_ENDPOINT_URL_STS=endpoint,
            AWS_WEB_IDENTITY_TOKEN_FILE=str(tmp_path / "token"),
            AWS_ROLE_ARN=ROLE,
        )
        with pytest.raises(StoreForbidden, match=f"trusts the token in {tmp_path}/token"):
            shared_session("s3://b")


async def test_a_code_is_asked_for_once(
    odd: OddStore, configured: Callable[..., None], tmp_path: Path
) -> None:
    """The connections of the lease and those of the data share one session."""
    put_standard(tmp_path / "archive", rdb(5000))
    master, slave = pty.openpty()

    def own_terminal() -> None:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    with sts(allows=True) as (endpoint, asked):
        configured(MFA, AWS_ENDPOINT_URL_STS=endpoint)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "archiver", "copy", "archive", f"s3://{BUCKET}/{PREFIX}",
            "--s3-endpoint", odd.endpoint, "--no-progress", cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.getcwd()}, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            preexec_fn=own_terminal,
        )  # fmt: skip
        os.write(master, b"123456\n" * 3)
        _, err = await process.communicate()
        os.close(slave)
    shown = os.read(master, 4096)
    os.close(master)
    assert process.returncode == 0, err
    assert [one["TokenCode"] for one in asked] == [["123456"]]
    assert shown.count(b"MFA code") == 1


def test_nobody_waits_for_a_code_after_a_cancellation(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = pty.openpty()
    real = os.open
    monkeypatch.setattr(os, "open", lambda *_: os.dup(slave))
    monkeypatch.setattr(credentials, "thread_is_cancelled", lambda: True)
    try:
        with pytest.raises(StoreForbidden, match="was cancelled"):
            prompt("Enter MFA code: ")
    finally:
        monkeypatch.setattr(os, "open", real)
        os.close(slave)
        os.close(master)


KEY = {
    "AWS_ACCESS_KEY_ID": "AKIAsealed", "AWS_SECRET_ACCESS_KEY": "sealed",
    "AWS_SESSION_TOKEN": "sealed",
}  # fmt: skip


@pytest.mark.parametrize("name", KEY)
@pytest.mark.parametrize("spoil", ["{}\r", "{}\n", " {}", "{} x", "'{}'", "{}\x1b[0m", "{}\u00e9"])
def test_a_spoilt_key_in_the_environment(
    configured: Callable[..., None], name: str, spoil: str
) -> None:
    """It would break a header, and the client would quote it. A secret may be any text."""
    configured("", **KEY | {name: spoil.format(KEY[name])})
    if "SECRET" in name and spoil in ("{} x", "{}\u00e9"):
        assert shared_session("s3://b")
        return
    with pytest.raises(StoreForbidden, match=f"s3://b: {name} in the environment: ") as caught:
        shared_session("s3://b")
    assert "sealed" not in str(caught.value)


@pytest.mark.parametrize("setting", ["aws_access_key_id", "aws_secret_access_key"])
def test_a_spoilt_key_in_a_file(configured: Callable[..., None], setting: str) -> None:
    config = "[profile a]\naws_access_key_id = sealed\naws_secret_access_key = sealed\n"
    configured(config.replace(f"{setting} = sealed", f'{setting} = "sealed"'))
    with pytest.raises(StoreForbidden, match=f"{setting} of the config-file: .*quotes") as caught:
        shared_session("s3://b")
    assert "sealed" not in str(caught.value)


def test_a_spoilt_key_that_is_to_assume_a_role(configured: Callable[..., None]) -> None:
    """It is sent before our check can see it."""
    config = ASSUMED.replace("= x", "= AKIA\n  sealed")
    configured(config, AWS_ENDPOINT_URL_STS="http://127.0.0.1:1")
    with pytest.raises(StoreForbidden) as caught:
        shared_session("s3://b")
    assert "sealed" not in str(caught.value)


@pytest.mark.parametrize("name", ["AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_CA_BUNDLE"])
def test_another_spoilt_variable(configured: Callable[..., None], name: str) -> None:
    configured("", **KEY | {name: "x\r"})
    with pytest.raises(UsageError, match=f"^{name} in the environment: .*carriage return"):
        shared_session("s3://b")


@pytest.mark.parametrize("name", ["AWS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_authorities_that_are_not_there(configured: Callable[..., None], name: str) -> None:
    configured("", **KEY | {name: "/nope/file"})
    bucket = Bucket("b", "", S3Options(endpoint="https://127.0.0.1:1"))
    with pytest.raises(UsageError, match=f"^{name}.*: /nope/file: No such file"):
        bucket.get("archive.json")
    plain = Bucket("b", "", S3Options(endpoint="http://127.0.0.1:1"), OutageBudget(ONE_TRY))
    with pytest.raises(StoreError):  # nobody asks for authorities there
        plain.get("archive.json")
    configured("", **{name: "/nope\r"})
    with pytest.raises(UsageError, match=f"^{name} in the environment: .*carriage return"):
        bucket.get("archive.json")
