"""The botocore client of one bucket: how it is configured, guarded and retried. All methods block.

The client runs in our own threads. Unlike obstore it lists parts, so that uploads can be resumed,
and it needs no event loop. Measurements: benchmarks/README.md.
"""

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final

from botocore.config import Config

from archiver.concurrency import on_abort
from archiver.network import check_authorities
from archiver.retry import RETRIES
from archiver.stores.s3.connections import Connections
from archiver.stores.s3.credentials import shared_session
from archiver.stores.s3.errors import bucket_errors, endpoint_errors
from archiver.stores.s3.options import S3Options
from archiver.stores.s3.outages import OutageBudget
from archiver.stores.s3.responses import check_response
from archiver.stray_characters import clean_variable
from archiver.version import __version__

CONNECT_SECONDS = int(RETRIES.connect.timeout)
READ_SECONDS = int(RETRIES.s3_call.timeout)
_READ_METHODS = frozenset(("GET", "HEAD"))
# Where the context of a request, which botocore passes to its handlers, has its key.
_KEY = "archiver_key"


class S3Client:
    """Sends requests to the bucket ``name``; keys are relative to ``prefix``.

    The client of botocore is created at the first request.
    """

    def __init__(
        self, name: str, prefix: str, options: S3Options, outages: OutageBudget, read_timeout: int
    ) -> None:
        self.name: Final = name
        self.prefix: Final = prefix
        self.options: Final = options
        self.outages: Final = outages
        self._read_timeout: Final = read_timeout
        self._botocore: Any = None
        self._creating: Final = threading.Lock()
        self._check_writer: Callable[[str], None] = lambda _: None
        self._connections: Final = Connections(f"s3://{name}")
        on_abort(self._connections.abort)

    def __str__(self) -> str:
        return f"s3://{self.name}/{self.prefix}".rstrip("/")

    def url(self, key: str) -> str:
        return f"s3://{self.name}/{self.prefix}{key}"

    def errors(self, key: str | None = None) -> AbstractContextManager[None]:
        """Translates what botocore raises about a key, or about the bucket."""
        return bucket_errors(str(self) if key is None else self.url(key), key or "")

    def call(self, operation: str, key: str | None = None, **given: Any) -> Mapping[str, Any]:
        """The response to an operation, by botocore's name and parameters. Raises what botocore
        raises."""
        if key is not None:
            given["Key"] = f"{self.prefix}{key}"
        response: Mapping[str, Any] = getattr(self.botocore, operation)(Bucket=self.name, **given)
        return response

    def request(self, operation: str, key: str | None = None, **given: Any) -> Mapping[str, Any]:
        """The same, with errors translated. Raises ArchiverError."""
        with self.errors(key):
            return self.call(operation, key, **given)

    def before_each_write(self, check: Callable[[str], None]) -> None:
        """Call ``check`` with the key before each request that changes something, before each retry
        of it, and after its response: by then somebody else may be the writer. What it raises
        replaces the response."""
        self._check_writer = check

    @property
    def botocore(self) -> Any:
        with self._creating:
            if self._botocore is None:
                self._botocore = self._create_for_endpoint()
            return self._botocore

    def _create_for_endpoint(self) -> Any:
        client = self._create(self.options.addressing_at(self.options.endpoint))
        # The endpoint may come from the environment: only the client knows it.
        style = self.options.addressing_at(client.meta.endpoint_url)
        if style != self.options.addressing_at(self.options.endpoint):
            client = self._create(style)
        return client

    def _create(self, addressing_style: str) -> Any:
        session = shared_session(str(self))
        config = Config(
            s3={"addressing_style": addressing_style},
            signature_version="s3v4",
            # By default newer SDKs send bodies in a framing that many stores refuse or store.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"mode": "standard", "total_max_attempts": 1},  # retries are ours
            connect_timeout=CONNECT_SECONDS,
            read_timeout=self._read_timeout,
            max_pool_connections=64,
            user_agent_extra=f"archiver/{__version__}",
        )
        region = session.get_config_variable("region") or "us-east-1"
        with endpoint_errors(str(self)):
            client = session.create_client(
                "s3", region_name=region, endpoint_url=self.options.endpoint, config=config,
                verify=None if self._is_plain_http else _ca_bundle(session),
            )  # fmt: skip
        self._connections.attach(client)
        events = client.meta.events
        # Before botocore's own handlers, which retry what is not XML.
        events.register_first("before-parse.*", check_response)
        events.register("before-parameter-build.s3", self._note_key)
        # Before signing: the check may take longer than a signature is valid.
        events.register_first("request-created.s3", self._before_request)
        events.register("before-send.s3", self.outages.before_send)
        events.register("needs-retry.s3", self._needs_retry)
        return client

    @property
    def _is_plain_http(self) -> bool:
        """Whether the endpoint is http://, as far as options and environment say."""
        names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
        endpoints = [self.options.endpoint, *map(os.environ.get, names)]
        return next(filter(None, endpoints), "").lower().startswith("http://")

    def _note_key(self, params: Mapping[str, Any], context: dict[str, Any], **_: object) -> None:
        """Handler of botocore's ``before-parameter-build`` event, which knows what is asked for."""
        context[_KEY] = str(params.get("Key", "")).removeprefix(self.prefix)

    def _before_request(self, request: Any, **_: object) -> None:
        """Handler of botocore's ``request-created`` event, which is emitted for each try."""
        if request.method not in _READ_METHODS:
            self._check_writer(request.context[_KEY])

    def _needs_retry(self, **given: Any) -> float | None:
        """Handler of botocore's ``needs-retry`` event. Never retries after an abort."""
        if self._connections.is_aborted:
            return None
        delay = self.outages.needs_retry(**given)
        is_final = delay is None and given.get("response") is not None
        request = given["request_dict"]
        if is_final and request["method"] not in _READ_METHODS:
            self._check_writer(request["context"][_KEY])
        return delay


def _ca_bundle(session: Any) -> str | None:
    """A file of certificate authorities; None for botocore's own. Raises UsageError for a file
    without any."""
    if bundle := session.get_config_variable("ca_bundle"):
        return check_authorities(bundle, "AWS_CA_BUNDLE, or ca_bundle in the profile")
    file = clean_variable(os.environ, "SSL_CERT_FILE")
    return check_authorities(file, "SSL_CERT_FILE") if file else None
