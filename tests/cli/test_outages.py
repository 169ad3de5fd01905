"""A source that has stopped answering: said once while it is waited for, and in the exit code."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from archiver.retry import RetryPolicy, RetryRule
from examples.sample_rdb import write_rdb
from tests.conftest import INSTANCE, KEY_ID, KEY_SECRET
from tests.faults import power

WAITING = "waiting for the source: "
PULL = ("pull", "--to", "archive", "--instance", INSTANCE, "--network", "public")


@pytest.fixture
def no_blocking_on_the_loop() -> None:
    """The command line looks at places and standard streams before it begins."""


def five_tries(first_wait: float) -> Callable[[RetryRule, float], RetryPolicy]:
    return lambda _, seconds: RetryPolicy(5, first_wait, give_up_after=seconds)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A try is not waited for, and there are five."""
    monkeypatch.setattr(RetryRule, "policy", five_tries(0.001))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", KEY_SECRET)


class Broken(BaseHTTPRequestHandler):
    """An API whose every answer is 500."""

    def do_POST(self) -> None:
        self.send_response(500)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def broken() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Broken) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("words", [PULL, ("ls", "--instance", INSTANCE)])
def test_an_api_that_fails(broken: str, words: tuple[str, ...]) -> None:
    for quiet in (False, True):
        ended = power.command(*words, "--endpoint", broken, *["--quiet"] * quiet)
        assert ended.code == 5
        assert ended.err.count(WAITING) == (not quiet)
        assert ended.err.count("status 500") == 2 - quiet


@pytest.mark.parametrize(("more", "code"), [({}, 5), ({"BackupStatus": "Failed"}, 1)])
def test_files_that_nobody_serves_any_more(
    tmp_path: Path, more: dict[str, str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no trouble of theirs, unless others failed for themselves."""
    # What is served comes before the rest is given up.
    monkeypatch.setattr(RetryRule, "policy", five_tries(0.5))
    gone = {"BackupDownloadURL": "http://127.0.0.1:1/gone"}
    fields: dict[str, dict[str, str]] = {}
    for day in (21, 22, 23):
        name = f"a_202611{day}021500.rdb"
        write_rdb(tmp_path / "vendor" / INSTANCE / name, 5000, day)
        fields[name] = {} if day == 21 else gone
    fields["a_20261123021500.rdb"] = gone | more
    (tmp_path / "vendor" / INSTANCE / "backups.json").write_text(json.dumps(fields))
    with power.serving(tmp_path / "vendor") as served:
        ended = power.command(*PULL, "--endpoint", served.endpoint, "--json")
    assert ended.code == code, ended.err
    assert ended.err.count(WAITING) == 1
    summary = json.loads(ended.out.splitlines()[-1])
    assert (summary["archived"], summary["failed"], summary["ended_by"]) == (1, 2, None)
