"""An emulator over https beside the one over http, and proxies before both."""

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from archiver.emulator import Emulator
from tests.cli.conftest import Run, environ, run
from tests.conftest import EmulatorMaker
from tests.servers.proxy import Proxy

__all__ = ["Run", "environ", "run"]

ProxyMaker = Callable[..., Proxy]


@dataclass(frozen=True)
class Authority:
    """One of our own: ``file`` is what has to be trusted."""

    file: Path
    context: ssl.SSLContext


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    ca = trustme.CA()
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1", "localhost", "vendor.test").configure_cert(context)
    return Authority(file, context)


@pytest.fixture(params=["http", "https"])
async def vendor(
    request: pytest.FixtureRequest,
    files: Path,
    emulator_of: EmulatorMaker,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
) -> Emulator:
    """The emulator over http, then over https with an authority that the environment names."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    return await emulator_of(files, tls=authority.context if request.param == "https" else None)


@pytest.fixture
def proxy_of() -> Iterator[ProxyMaker]:
    with ExitStack() as stack:

        def start(**options: object) -> Proxy:
            return stack.enter_context(Proxy(**options).serving())  # type: ignore[arg-type]

        yield start


@pytest.fixture
def proxy(proxy_of: ProxyMaker) -> Proxy:
    return proxy_of()
