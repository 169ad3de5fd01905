"""The API, the files and the credentials, by way of real proxies."""

import json
import os
from pathlib import Path

import pytest

from archiver import Archive, PullOptions, TransferOptions, pull
from archiver.emulator import Emulator
from archiver.errors import ProxyDenied, SourceUnreachable
from archiver.proxies import Proxies
from archiver.retry import RetryPolicy
from examples.sample_rdb import write_rdb
from tests.cli.conftest import Result, Run
from tests.conftest import INSTANCE, KEY_SECRET, QUICK, everything, source_of
from tests.network.conftest import Authority, ProxyMaker
from tests.servers.proxy import Proxy

PULL = ("pull", "--instance", INSTANCE, "--to", "archive", "--retry-for", "1s", "-vv", "--json")


def make(files: Path) -> int:
    """One backup for each way that files come; the bytes of all."""
    sizes = (20_000, 2_000_000)
    for n, size in enumerate(sizes):
        write_rdb(files / INSTANCE / f"{n}.rdb", size, n)
    return sum(sizes)


def said(result: Result) -> str:
    text = result.out + result.err
    assert "hunter2" not in text
    assert "aHVudGVyM" not in text
    assert KEY_SECRET not in text
    return text


@pytest.fixture
def run_vendor(vendor: Emulator, run: Run) -> Run:
    """The command, which asks the emulator over http or https, and knows no proxy yet."""

    async def start(*args: str, **changed: str | None) -> Result:
        names = [f"ARCHIVER_{name}_ENDPOINT" for name in ("PULL", "LS", "VERIFY")]
        return await run(*args, **dict.fromkeys(names, vendor.endpoint), **changed)

    return start


@pytest.fixture
def environ(environ: dict[str, str], vendor: Emulator, authority: Authority) -> dict[str, str]:
    return environ | {"SSL_CERT_FILE": str(authority.file)}


@pytest.mark.parametrize("case", [str.upper, str.lower])
async def test_everything_goes_through_it(
    files: Path, vendor: Emulator, run_vendor: Run, proxy: Proxy, case: object
) -> None:
    size = make(files)
    scheme = vendor.endpoint.partition(":")[0]
    name = (str.upper if case is str.upper else str.lower)(f"{scheme}_proxy")
    result = await run_vendor(*PULL, **{name: proxy.url})
    assert result.code == 0, result.err
    assert proxy.bytes_back > size
    own = f"127.0.0.1:{vendor.port}"
    if scheme == "https":
        assert set(proxy.tunnels) == {own}
        assert not proxy.forwarded
        assert len(proxy.tunnels) >= 3  # the API, and one for each way that files come
    else:
        assert not proxy.tunnels
        assert f"http://{own}/" in proxy.forwarded
        assert len([url for url in proxy.forwarded if url.endswith(".rdb")]) >= 2
    asked = vendor.tally.api_calls + vendor.tally.object_requests
    assert scheme == "https" or proxy.count == asked  # nothing went around it


async def test_user_and_password(files: Path, run_vendor: Run, proxy_of: ProxyMaker) -> None:
    make(files)
    proxy = proxy_of(user="someone", password="hunter2")
    result = await run_vendor(*PULL, "--proxy", proxy.url_with_password)
    assert result.code == 0, result.err
    assert proxy.denied == 0
    assert proxy.count
    said(result)


async def test_an_option_wins(files: Path, run_vendor: Run, proxy_of: ProxyMaker) -> None:
    make(files)
    of_environment, given = proxy_of(refuses=503), proxy_of()
    environ = {"HTTP_PROXY": of_environment.url, "HTTPS_PROXY": of_environment.url}
    result = await run_vendor(*PULL, "--proxy", given.url, **environ, NO_PROXY="*")
    assert result.code == 0, result.err
    assert given.count
    result = await run_vendor(*PULL, "--proxy", "none", **environ)
    assert result.code == 0, result.err
    assert "nothing new" in result.err


async def test_no_proxy(files: Path, run_vendor: Run, proxy: Proxy) -> None:
    make(files)
    environ = {"http_proxy": proxy.url, "https_proxy": proxy.url}
    result = await run_vendor(*PULL, **environ, NO_PROXY="example.com,127.0.0.0/8")
    assert result.code == 0, result.err
    assert proxy.count == 0


@pytest.mark.parametrize(
    ("habits", "code", "words"),
    [
        ({"user": "a", "password": "b"}, 4, "requires a user and password"),
        ({"refuses": 403}, 5, "403"),
        ({"refuses": 503}, 5, "503"),
        ({"hangs_up": True}, 5, "no response from"),
    ],
)
async def test_a_proxy_that_is_in_the_way(
    run_vendor: Run, proxy_of: ProxyMaker, habits: dict[str, object], code: int, words: str
) -> None:
    proxy = proxy_of(**habits)
    given = proxy.url.replace("//", "//someone:hunter2@")
    result = await run_vendor(*PULL, "--proxy", given)
    assert result.code == code, result.err
    assert words in result.err
    assert proxy.url in result.err
    said(result)


async def test_a_proxy_that_is_not_there(run_vendor: Run) -> None:
    result = await run_vendor(*PULL, "--proxy", "http://someone:hunter2@127.0.0.1:1")
    assert result.code == 5, result.err
    assert "cannot connect to the proxy http://127.0.0.1:1" in result.err
    said(result)


async def test_a_proxy_that_cannot_be_used(run_vendor: Run) -> None:
    for scheme in ("http", "https"):
        environ = {f"{scheme}_proxy": "socks5://someone:hunter2@127.0.0.1:1"}
        result = await run_vendor(*PULL, **environ)
        assert result.code == 2, result.err
        assert f"{scheme}_proxy: invalid proxy" in result.err
        said(result)
    result = await run_vendor(*PULL, "--proxy", "ftp://someone:hunter2@127.0.0.1:1")
    assert result.code == 2, result.err
    said(result)


@pytest.mark.parametrize(
    ("habits", "kind"),
    [
        ({"user": "a"}, "ProxyDenied"),
        ({"refuses": 403}, "ProxyRefused UrlRefused"),
        ({"refuses": 502}, "SourceUnavailable"),
        ({"hangs_up": True}, "SourceUnavailable"),
    ],
)
async def test_files_behind_a_proxy_that_is_in_the_way(
    files: Path,
    vendor: Emulator,
    archive: Archive,
    proxy_of: ProxyMaker,
    habits: dict[str, object],
    kind: str,
) -> None:
    """The API is reached past it: each backup fails by itself, and names the proxy."""
    make(files)
    proxy = proxy_of(**habits)
    options = PullOptions(transfer=TransferOptions(retry=QUICK, proxies=Proxies.given(proxy.url)))
    async with source_of(vendor, proxies=Proxies()) as source:
        summary = await pull(source, archive, [everything()], options)
    assert len(summary.failures) == 2
    for failure in summary.failures:
        assert type(failure.error).__name__ in kind.split()
        assert proxy.url in str(failure.error)
    assert summary.exit_code == 1
    assert proxy.count == 0


async def test_files_behind_no_proxy_at_all(
    files: Path, vendor: Emulator, archive: Archive
) -> None:
    make(files)
    nobody = Proxies.given("http://127.0.0.1:1")
    options = PullOptions(transfer=TransferOptions(retry=QUICK, proxies=nobody))
    async with source_of(vendor, proxies=Proxies()) as source:
        summary = await pull(source, archive, [everything()], options)
    assert {type(failure.error) for failure in summary.failures} == {SourceUnreachable}
    assert "cannot connect to the proxy http://127.0.0.1:1" in str(summary.failures[0].error)


async def test_the_intranet_is_not_looked_for_behind_a_proxy(
    files: Path, vendor: Emulator, run_vendor: Run, proxy: Proxy
) -> None:
    """That a proxy answers says nothing of who is behind it."""
    make(files)
    result = await run_vendor(*PULL, "--proxy", proxy.url)
    summary = json.loads(result.out.splitlines()[-1])
    assert list(summary["bytes_fetched"]) == ["public"]
    assert f"the proxy {proxy.url} is used" in result.err


async def test_the_library_obeys_the_environment(
    files: Path,
    vendor: Emulator,
    archive: Archive,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size = make(files)
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    async with source_of(vendor) as source:
        summary = await pull(source, archive, [everything()])
    assert summary.failures == []
    assert proxy.bytes_back > size


async def test_a_wrong_password_is_not_tried_again(
    vendor: Emulator, archive: Archive, proxy_of: ProxyMaker
) -> None:
    proxy = proxy_of(user="a", password="b")
    patient = RetryPolicy(give_up_after=60.0)
    given = Proxies.given(proxy.url)
    async with source_of(vendor, proxies=given, retry=patient) as source:
        summary = await pull(source, archive, [everything(), everything("r-other")])
    [failure] = summary.failures
    assert isinstance(failure.error, ProxyDenied)
    assert proxy.denied == 1
    assert summary.exit_code == 4


async def test_credentials_by_uri_go_through_it(
    files: Path, vendor: Emulator, run_vendor: Run, proxy: Proxy
) -> None:
    """What answers there is no key: but it was asked the way that everything is."""
    uri = f"{vendor.endpoint}/none"
    result = await run_vendor(
        *PULL,
        "--proxy",
        proxy.url,
        ALIBABA_CLOUD_ACCESS_KEY_ID=None,
        ALIBABA_CLOUD_ACCESS_KEY_SECRET=None,
        ALIBABA_CLOUD_CREDENTIALS_URI=uri,
    )
    assert result.code == 4, result.err
    assert f"the proxy {proxy.url}" in result.err
    assert proxy.count == 1
    assert os.environ.get("HTTPS_PROXY") is None
