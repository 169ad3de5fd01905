"""The credentials for buckets, from AWS's provider chain, and clear errors about them.

botocore resolves keys, profiles, roles, web identities, ``credential_process`` and SSO. All clients
of a run share one session, so that nobody has to type an MFA code twice.
"""

import os
import re
import select
import shlex
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, Final

import botocore.session
from botocore import exceptions
from botocore.credentials import ProcessProvider
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import Loader, create_loader

from archiver.concurrency import thread_is_cancelled
from archiver.errors import ArchiverError, StoreForbidden, UsageError
from archiver.stores.s3.requests import log_requests, log_sent
from archiver.stray_characters import access_key_problem, clean_variable, stray_characters_in

# Operations of the services that issue credentials; no operation of a bucket has such a name.
_CREDENTIAL_OPERATIONS: Final = frozenset(
    (
        "AssumeRole", "AssumeRoleWithWebIdentity", "CreateOAuth2Token", "CreateToken",
        "GetRoleCredentials",
    )
)  # fmt: skip
_BROKEN_CONFIG: Final = (
    exceptions.ConfigParseError,
    exceptions.ProfileNotFound,
    exceptions.InvalidConfigError,
    exceptions.UnknownCredentialError,
)
# Environment variables with keys, and the names of the same settings in a profile.
_KEYS: Final = {
    "AWS_ACCESS_KEY_ID": "aws_access_key_id",
    "AWS_SECRET_ACCESS_KEY": "aws_secret_access_key",
    "AWS_SESSION_TOKEN": "aws_session_token",
}
# Other environment variables that a session depends on.
_SETTINGS: Final = (
    "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL_STS", "AWS_CA_BUNDLE", "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)  # fmt: skip
# botocore's own words in a message about a program or service that issued no credentials.
_SAFE_WORDS: Final = re.compile(
    r"it ended with status -?\d+|non 200 response \d+|Missing required key in response: '\w+'|"
    r"Unsupported version|response did not contain: [\w, ]+|No credentials found"
)
_POLL_SECONDS: Final = 0.2
_MAX_QUOTED: Final = 300
_guard: Final = threading.Lock()


def shared_session(url: str) -> Any:  # noqa: ANN401 - botocore has no types
    """botocore's session for the current environment, with its credentials resolved if it has any.

    ``url`` is the bucket to name in errors. Raises UsageError, StoreForbidden.
    """
    for name in _SETTINGS:
        clean_variable(os.environ, name)
    with _guard, _credential_errors(url):
        for name in (*_KEYS, "AWS_SECURITY_TOKEN"):
            _check_key(url, f"{name} in the environment", os.environ.get(name))
        session = _session(tuple(sorted(_environment())))
        if (credentials := session.get_credentials()) is not None:
            given = zip(_KEYS.values(), credentials.get_frozen_credentials()[:3], strict=True)
            for name, value in given:
                _check_key(url, f"{name} of the {credentials.method}", value)
        return session


def owner(url: str) -> tuple[str, str] | None:
    """How the access key was found, in botocore's word, and its id; None where none was. Raises
    UsageError, StoreForbidden."""
    session = shared_session(url)
    with _guard, _credential_errors(url):
        credentials = session.get_credentials()
        if credentials is None:
            return None
        return credentials.method, credentials.get_frozen_credentials().access_key


def _check_key(url: str, name: str, value: str | None) -> None:
    """Raise StoreForbidden for characters that no key has: they would break the header that carries
    the key, and the client would quote that. A secret is never sent, and some stores allow any
    text for it."""
    is_secret = "secret" in name.lower()
    problem_of = stray_characters_in if is_secret else access_key_problem
    if value and (fault := problem_of(value)) is not None:
        raise StoreForbidden(f"{url}: {name}: {fault}", hint="copy it again")


def _environment() -> Iterator[tuple[str, str]]:
    """The variables that a session depends on, and their values."""
    for name, value in os.environ.items():
        if name == "HOME" or name.startswith("AWS_"):
            yield name, value


@lru_cache(maxsize=1)
def _session(_: tuple[tuple[str, str], ...]) -> Any:  # noqa: ANN401
    session = _Session()
    session.register_component("data_loader", _loader())
    resolver = session.get_component("credential_provider")
    # The session offers no other way to set these.
    assume_role, process = map(resolver.get_provider, ("assume-role", "custom-process"))
    assume_role._prompter = prompt  # noqa: SLF001
    process._popen = _Program  # noqa: SLF001
    instance, container = map(resolver.get_provider, ("iam-role", "container-role"))
    log_sent(instance._role_fetcher._session)  # noqa: SLF001
    log_sent(container._fetcher._session, is_secret=True)  # noqa: SLF001
    assume_role._profile_provider_builder._create_process_provider = partial(  # noqa: SLF001
        ProcessProvider, load_config=lambda: session.full_config, popen=_Program
    )
    return session


class _Session(botocore.session.Session):  # type: ignore[misc] # botocore has no types
    """Logs the requests of its clients: those of buckets, and of services that issue
    credentials."""

    def create_client(self, *args: Any, **given: Any) -> Any:  # noqa: ANN401
        client = super().create_client(*args, **given)
        log_requests(client)
        return client


class _Program(subprocess.Popen[bytes]):
    """A credential_process. Its stderr may hold secrets, so only its exit status is reported."""

    def communicate(self, *args: Any, **given: Any) -> tuple[bytes, bytes]:  # noqa: ANN401
        out, _ = super().communicate(*args, **given)
        return out, b"it ended with status %d" % self.returncode


@lru_cache
def _loader() -> Loader:
    """Cached, since reading the model of S3 takes most of the time of creating a client."""
    return create_loader()


@contextmanager
def _credential_errors(url: str) -> Iterator[None]:
    """Translate what is raised when credentials are resolved. Raises UsageError, StoreForbidden."""
    try:
        yield
    except (BotoCoreError, ClientError, OSError) as error:
        found = of_credentials(url, error)
        raise found or StoreForbidden(f"{url}: no S3 credentials: {_message(error)}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreForbidden(
            f"{url}: no S3 credentials: their source returned something invalid: "
            + (f"{error} is missing" if isinstance(error, KeyError) else _message(error)),
            hint=f"run it by hand and check its output{_program()}",
        ) from None


def of_credentials(url: str, error: Exception) -> ArchiverError | None:
    """The fault of the credentials, or of the files that they come from; None when ``error`` is not
    about them."""
    if isinstance(error, exceptions.NoRegionError):
        return UsageError(
            f"{url}: {_message(error)}", hint="set AWS_DEFAULT_REGION, or region in the profile"
        )
    if isinstance(error, _BROKEN_CONFIG):
        return UsageError(f"{url}: {_message(error)}", hint="see ~/.aws/config, or AWS_CONFIG_FILE")
    hint = _hint(error)
    if hint is None:
        return None
    return StoreForbidden(f"{url}: no S3 credentials: {_message(error)}", hint=hint)


def _hint(error: Exception) -> str | None:
    """How to mend the credentials; None when ``error`` is not about them."""
    hint: str | None = None
    match error:
        case exceptions.NoCredentialsError() | exceptions.PartialCredentialsError():
            hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        case exceptions.SSOError() | exceptions.TokenRetrievalError():
            hint = f"aws sso login{_profile_option()}"
        case exceptions.LoginError():
            hint = f"aws login{_profile_option()}"
        case exceptions.RefreshWithMFAUnsupportedError():
            hint = (
                "run the command again; duration_seconds in the profile makes MFA sessions longer"
            )
        case exceptions.CredentialRetrievalError():
            hint = f"run it by hand and check its output{_program()}"
        case ClientError() if error.operation_name in _CREDENTIAL_OPERATIONS:
            hint = _after_denial(error.operation_name)
        case OSError() if error.filename is not None:
            hint = _about_file(os.fsdecode(error.filename))
    return hint


def _message(error: Exception) -> str:
    """The message of an error, without what may hold secrets: the stderr of a program, or a header
    that could not be sent."""
    if isinstance(error, exceptions.CredentialRetrievalError):
        return _retrieval_message(error)
    if type(error) is exceptions.HTTPClientError:
        return "a request for them failed"
    return f"{' '.join(str(error).split()):.{_MAX_QUOTED}}"


def _retrieval_message(error: exceptions.CredentialRetrievalError) -> str:
    provider, text = (str(error.kwargs[name]) for name in ("provider", "error_msg"))
    found = _SAFE_WORDS.search(text)
    return f"{provider}: {'it returned none' if found is None else found[0]}"


def _after_denial(operation: str) -> str:
    if operation == "AssumeRoleWithWebIdentity":
        return f"check that the role trusts the token in {_web_identity_file()}"
    if operation == "AssumeRole":
        return f"check that this identity may assume {_configured('role_arn') or 'the role'}"
    return f"aws sso login{_profile_option()}"


def _about_file(file: str) -> str:
    if file == _web_identity_file():
        return (
            "it is named by AWS_WEB_IDENTITY_TOKEN_FILE or web_identity_token_file in the profile"
        )
    return "it is named by the AWS profile or an AWS_… variable"


def _web_identity_file() -> str | None:
    return os.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE") or _configured("web_identity_token_file")


def _program() -> str:
    """The program of a credential_process, in parentheses and without its arguments; empty when
    none is configured."""
    command = _configured("credential_process")
    try:
        return f" (credential_process: {shlex.split(command)[0]})" if command else ""
    except (ValueError, IndexError):
        return " (credential_process)"


def _profile_option() -> str:
    profile = os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE")
    return f" --profile {shlex.quote(profile)}" if profile else ""


def _configured(name: str) -> str | None:
    """The value of a setting in the profile, or in its source_profile."""
    session = botocore.session.get_session()
    try:
        profile = session.get_scoped_config()
        source = session.full_config["profiles"].get(profile.get("source_profile"), {})
    except BotoCoreError:
        return None
    found = profile.get(name) or source.get(name)
    return found if isinstance(found, str) else None


def prompt(message: str) -> str:
    """An MFA code, typed on the terminal of this process. Raises StoreForbidden when there is no
    terminal, or the work was cancelled meanwhile."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        raise StoreForbidden(
            f"an MFA code is needed ({message.strip().rstrip(':')}), and there is no terminal",
            hint="provide temporary credentials, such as `aws sts assume-role` prints",
        ) from None
    try:
        os.write(terminal, message.encode())
        while not thread_is_cancelled():
            if select.select([terminal], [], [], _POLL_SECONDS)[0]:
                return os.read(terminal, 1024).decode(errors="replace").strip()
    finally:
        os.close(terminal)
    raise StoreForbidden("the prompt for an MFA code was cancelled")
