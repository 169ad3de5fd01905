"""Which endpoint a region has."""

import concurrent.futures
import socket
from collections.abc import Mapping, Sequence

import pytest
from yarl import URL

from archiver import network
from archiver.errors import SourceError, UsageError
from archiver.proxies import Proxies
from archiver.sources.alibaba.regions import host_of, read_regions

CENTRAL, OWN = "r-kvstore.aliyuncs.com", "r-kvstore.cn-beijing.aliyuncs.com"


def regions(*entries: object) -> dict[str, object]:
    return {"RegionIds": {"KVStoreRegion": list(entries)}}


def entry(region: str, host: str | None) -> dict[str, object]:
    return {"RegionId": region, **({} if host is None else {"RegionEndpoint": host})}


@pytest.mark.parametrize(
    ("asked", "host", "endpoint"),
    [
        (f"https://{CENTRAL}", OWN, f"https://{OWN}"),
        (f"https://{CENTRAL}", None, f"https://{OWN}"),
        (f"https://{CENTRAL}", "", f"https://{OWN}"),
        (
            f"https://{CENTRAL}",
            "r-kvstore-vpc.cn-beijing.aliyuncs.com",
            "https://r-kvstore-vpc.cn-beijing.aliyuncs.com",
        ),
        (f"http://{CENTRAL}", CENTRAL, f"http://{CENTRAL}"),
        (f"http://{CENTRAL}", OWN, f"https://{OWN}"),
        ("http://127.0.0.1:8080", OWN, f"https://{OWN}"),
        ("http://127.0.0.1:8080", "127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://[::1]:8080", "[::1]:8080", "http://[::1]:8080"),
        ("https://vendor.test", "vendor.test", "https://vendor.test"),
    ],
)
def test_only_the_host_that_was_asked_may_be_asked_over_http(
    asked: str, host: str | None, endpoint: str
) -> None:
    answer = regions(entry("cn-beijing", host))
    assert read_regions(answer, URL(asked)) == ({"cn-beijing": endpoint}, {})


@pytest.mark.parametrize(
    "host",
    [
        "evil.test", "aliyuncs.com.evil.test", "evilaliyuncs.com", "169.254.169.254",
        "x.oss-cn-beijing.aliyuncs.com", "r-kvstore.x.oss-cn-beijing.aliyuncs.com",
        "x-r-kvstore.cn-beijing.aliyuncs.com", "ecs.cn-beijing.aliyuncs.com", "aliyuncs.com",
        f"{OWN}/path", f"user:password@{OWN}", f"{OWN}?a=b", "a b", "[", f"http://{OWN}",
    ],
)  # fmt: skip
def test_tokens_are_sent_to_nobody_else(host: str) -> None:
    answer = regions(entry("cn-bad", host), entry("cn-beijing", OWN))
    endpoints, refused = read_regions(answer, URL(f"https://{CENTRAL}"))
    assert list(endpoints) == ["cn-beijing"]
    assert "'cn-bad': DescribeRegions names" in str(refused["cn-bad"])


@pytest.mark.parametrize("answer", [{}, {"RegionIds": []}, regions({}), regions(1)])
def test_what_is_no_answer(answer: Mapping[str, object]) -> None:
    with pytest.raises(SourceError, match="names no regions"):
        read_regions(answer, URL(f"https://{CENTRAL}"))


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """By host, the error of its lookup; the others resolve."""
    errors: dict[str, int] = {}

    def look_up(host: str, port: int, flags: int = 0) -> Sequence[network.Address]:
        if host in errors:
            raise socket.gaierror(errors[host], "no")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(network, "_getaddrinfo", look_up)
    return errors


async def test_the_other_host_where_there_is_no_such_name(names: dict[str, int]) -> None:
    direct = Proxies()
    assert await host_of("cn-beijing", direct) == OWN
    assert await host_of("cn-hangzhou", direct) == CENTRAL
    names[OWN] = socket.EAI_NONAME
    assert await host_of("cn-beijing", direct) == CENTRAL
    names[CENTRAL] = socket.EAI_NONAME
    assert await host_of("cn-hangzhou", direct) == "r-kvstore.cn-hangzhou.aliyuncs.com"
    assert await host_of("cn-beijing", direct) == OWN  # what fails then says why
    finance = "cn-shanghai-finance-1"
    assert await host_of(finance, direct) == f"r-kvstore.{finance}.aliyuncs.com"


async def test_a_resolver_that_fails_says_nothing_of_the_name(names: dict[str, int]) -> None:
    names[OWN] = socket.EAI_AGAIN
    assert await host_of("cn-beijing", Proxies()) == OWN


async def test_a_resolver_that_does_not_answer_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dead: concurrent.futures.Future[object] = concurrent.futures.Future()
    monkeypatch.setattr("archiver.sources.alibaba.regions.lookup", lambda *_: dead)
    monkeypatch.setattr("archiver.sources.alibaba.regions.CONNECT_SECONDS", 0.01)
    assert await host_of("cn-beijing", Proxies()) == OWN


async def test_a_proxy_resolves_the_names(names: dict[str, int]) -> None:
    names[OWN] = socket.EAI_NONAME
    assert await host_of("cn-beijing", Proxies.given("http://proxy:3128")) == OWN


async def test_all_documents_agree_on_the_others(names: dict[str, int]) -> None:
    """A region that is misspelt is not looked for elsewhere."""
    names["r-kvstore.eu-west-9.aliyuncs.com"] = socket.EAI_NONAME
    assert await host_of("eu-west-9", Proxies()) == "r-kvstore.eu-west-9.aliyuncs.com"
    with pytest.raises(UsageError, match="not a region id"):
        await host_of("Nowhere", Proxies())
