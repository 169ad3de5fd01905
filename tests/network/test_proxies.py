"""Which proxy stands between us and a host, as curl and requests decide it."""

import pytest

from archiver.errors import UsageError
from archiver.proxies import Proxies, Proxy

VENDOR = "r-kvstore.aliyuncs.com"
A, B, C = "http://a:1", "http://b:2", "http://c:3"


def between(environ: dict[str, str], scheme: str, host: str, port: int | None = None) -> str | None:
    proxy = Proxies.from_environment(environ).between(scheme, host, port)
    return None if proxy is None else proxy.url


@pytest.mark.parametrize(
    ("environ", "http", "https"),
    [
        ({}, None, None),
        ({"HTTP_PROXY": A}, A, None),
        ({"HTTPS_PROXY": A}, None, A),
        ({"http_proxy": A, "https_proxy": B}, A, B),
        ({"HTTPS_PROXY": A, "https_proxy": B}, None, B),
        ({"HTTPS_PROXY": A, "https_proxy": ""}, None, None),
        ({"ALL_PROXY": C, "HTTPS_PROXY": A}, C, A),
        ({"all_proxy": C}, C, C),
        # A stranger's header of a web server's: httpoxy.
        ({"HTTP_PROXY": A, "REQUEST_METHOD": "GET"}, None, None),
        ({"http_proxy": A, "REQUEST_METHOD": "GET"}, A, None),
        ({"HTTPS_PROXY": " a:1 "}, None, A),
        ({"HTTPS_PROXY": "HTTP://A:1/"}, None, A),
    ],
)
def test_the_environment(environ: dict[str, str], http: str | None, https: str | None) -> None:
    assert between(environ, "http", VENDOR) == http
    assert between(environ, "https", VENDOR) == https


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "direct"),
    [
        ("*", VENDOR, None, True),
        ("other, *", VENDOR, None, True),
        ("aliyuncs.com", VENDOR, None, True),
        (".aliyuncs.com", VENDOR, None, True),
        ("*.aliyuncs.com", VENDOR, None, True),
        ("ALIYUNCS.com", VENDOR, None, True),
        ("aliyuncs.com.", f"{VENDOR}.", None, True),
        ("aliyuncs.com", "aliyuncs.com", None, True),
        ("yuncs.com", VENDOR, None, False),
        ("a.example other.example b.example", "b.example", None, True),
        ("aliyuncs.com:443", VENDOR, None, True),
        ("aliyuncs.com:443", VENDOR, 8443, False),
        ("127.0.0.1:8080", "127.0.0.1", 8080, True),
        ("127.0.0.1:8080", "127.0.0.1", 8081, False),
        ("10.0.0.0/8", "10.1.2.3", None, True),
        ("10.0.0.0/8", "11.1.2.3", None, False),
        ("10.1.2.3", "10.1.2.3", None, True),
        ("10.1.2.3", "10.1.2.30", None, False),
        ("2.3", "10.1.2.3", None, False),
        ("fd00::/8", "[fd00::1]", None, True),
        ("fd00::1", "fd00::1", None, True),
        ("[fd00::1]:9", "fd00::1", 9, True),
        ("[fd00::1]:9", "fd00::1", 8, False),
        ("10.0.0.0/8", "fd00::1", None, False),
        ("", VENDOR, None, False),
        (",, ,", VENDOR, None, False),
        (".", VENDOR, None, False),
    ],
)
def test_who_is_spoken_to_directly(
    no_proxy: str, host: str, port: int | None, direct: bool
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        found = between({"HTTPS_PROXY": A, name: no_proxy}, "https", host, port)
        assert (found is None) is direct


@pytest.mark.parametrize(
    "host",
    ["100.100.100.200", "169.254.169.254", "169.254.0.7", "fe80::1", "[fe80::1%eth0]",
     "::ffff:169.254.169.254", "fd00:ec2::254"],
)  # fmt: skip
def test_metadata_is_never_asked_through_a_proxy(host: str) -> None:
    assert Proxies.given(A).between("http", host) is None


def test_an_option_wins_over_the_environment() -> None:
    given = Proxies.given("u:p%40w@proxy.example:3128")
    for scheme in ("http", "https"):
        proxy = given.between(scheme, VENDOR)
        assert proxy is not None
        assert proxy.url == "http://proxy.example:3128"
        assert proxy.headers == {"Proxy-Authorization": "Basic dTpwQHc="}
    assert Proxies.given("none") == Proxies()


def test_a_proxy_does_not_print_its_password() -> None:
    proxy = Proxy.parse("http://someone:hunter2@proxy:3128", "x")
    for text in (str(proxy), repr(proxy), repr(Proxies(proxy, proxy))):
        assert "hunter2" not in text
        assert "c29tZW9uZ" not in text
        assert "someone" not in text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("socks5://u:hunter2@p:1", "its scheme is 'socks5'"),
        ("https://u:hunter2@p:1", "its scheme is 'https'"),
        ("http://u:hunter2@:1", "it has no host"),
        ("http://u:hunter2@p:99999", "it is not a URL"),
        ("http://u:hunter2@[p", "it is not a URL"),
        ("http://u:hunter2@p:1/path", "continues after"),
        ("http://u:hunter2@p q:1", "it has no host"),
    ],
)
def test_proxies_that_cannot_be_used(text: str, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        Proxies.from_environment({"https_proxy": text})
    assert str(caught.value).startswith("https_proxy: invalid proxy: ")
    assert why in str(caught.value)
    assert "hunter2" not in str(caught.value)
