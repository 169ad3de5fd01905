"""AWS's chain of credentials: asked once a run, and what is wrong with it said in our words.

Keys, profiles, roles, web identities, ``credential_process`` and SSO are botocore's affair. One
session is shared by all that asks a bucket, so that nobody types a code of a device twice.
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

# Operations that give credentials, and none that a bucket does.
_GIVE_CREDENTIALS: Final = frozenset(
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
# What a key may come from in the environment, and the names of the same in a file.
_KEYS: Final = {
    "AWS_ACCESS_KEY_ID": "aws_access_key_id",
    "AWS_SECRET_ACCESS_KEY": "aws_secret_access_key",
    "AWS_SESSION_TOKEN": "aws_session_token",
}
# Others that a session depends on.
_SETTINGS: Final = (
    "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL_STS", "AWS_CA_BUNDLE", "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)  # fmt: skip
# In what botocore says of a program or a service that gave no key, its own words.
_OF_BOTOCORE: Final = re.compile(
    r"it ended with status -?\d+|non 200 response \d+|Missing required key in response: '\w+'|"
    r"Unsupported version|response did not contain: [\w, ]+|No credentials found"
)
_LOOK_SECONDS: Final = 0.2
_MOST_SAID: Final = 300
_guard: Final = threading.Lock()


def shared_session(what: str) -> Any:  # noqa: ANN401 - botocore has no types
    """botocore's session for the environment as it is, its credentials there, if there are any.

    Raises UsageError, StoreForbidden.
    """
    for name in _SETTINGS:
        clean_variable(os.environ, name)
    with _guard, access_errors(what):
        for name in (*_KEYS, "AWS_SECURITY_TOKEN"):
            _check_key(what, f"{name} in the environment", os.environ.get(name))
        session = _session(tuple(sorted(_environment())))
        if (credentials := session.get_credentials()) is not None:
            given = zip(_KEYS.values(), credentials.get_frozen_credentials()[:3], strict=True)
            for name, value in given:
                _check_key(what, f"{name} of the {credentials.method}", value)
        return session


def _check_key(what: str, name: str, value: str | None) -> None:
    """Raises StoreForbidden for what can be no part of a key: it would break the header that it
    is sent in, and be quoted with that. A secret is not sent, and some stores take any text."""
    is_secret = "secret" in name.lower()
    problem_of = stray_characters_in if is_secret else access_key_problem
    if value and (wrong := problem_of(value)) is not None:
        raise StoreForbidden(f"{what}: {name}: {wrong}", hint="copy it again")


def _environment() -> Iterator[tuple[str, str]]:
    """What a session depends on."""
    for name, value in os.environ.items():
        if name == "HOME" or name.startswith("AWS_"):
            yield name, value


@lru_cache(maxsize=1)
def _session(_: tuple[tuple[str, str], ...]) -> Any:  # noqa: ANN401
    session = _Session()
    session.register_component("data_loader", _loader())
    resolver = session.get_component("credential_provider")
    # There is no other way to any of these.
    assume_role, process = map(resolver.get_provider, ("assume-role", "custom-process"))
    assume_role._prompter = ask  # noqa: SLF001
    process._popen = _Program  # noqa: SLF001
    instance, container = map(resolver.get_provider, ("iam-role", "container-role"))
    log_sent(instance._role_fetcher._session)  # noqa: SLF001
    log_sent(container._fetcher._session, is_secret=True)  # noqa: SLF001
    assume_role._profile_provider_builder._create_process_provider = partial(  # noqa: SLF001
        ProcessProvider, load_config=lambda: session.full_config, popen=_Program
    )
    return session


class _Session(botocore.session.Session):  # type: ignore[misc] # botocore has no types
    """Whose clients, of buckets and of services that give credentials, have requests logged."""

    def create_client(self, *args: Any, **given: Any) -> Any:  # noqa: ANN401
        client = super().create_client(*args, **given)
        log_requests(client)
        return client


class _Program(subprocess.Popen[bytes]):
    """A credential_process; of its stderr, where it may say anything, nothing is passed on."""

    def communicate(self, *args: Any, **given: Any) -> tuple[bytes, bytes]:  # noqa: ANN401
        out, _ = super().communicate(*args, **given)
        return out, b"it ended with status %d" % self.returncode


@lru_cache
def _loader() -> Loader:
    """Of botocore's models: to read that of S3 takes longer than all else of making a client."""
    return create_loader()


@contextmanager
def access_errors(what: str) -> Iterator[None]:
    """Translate whatever is raised while credentials for ``what`` are looked for."""
    try:
        yield
    except (BotoCoreError, ClientError, OSError) as error:
        found = of_credentials(what, error)
        raise found or StoreForbidden(f"{what}: no S3 credentials: {_said(error)}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreForbidden(
            f"{what}: no S3 credentials: what gives them does not say what it should: "
            f"{type(error).__name__}: {_said(error)}",
            hint=f"run it by hand, and see what it says{_program()}",
        ) from None


def of_credentials(what: str, error: Exception) -> ArchiverError | None:
    """What is wrong with the credentials, or the files that they come from; None where ``error``
    is not about them."""
    if isinstance(error, exceptions.NoRegionError):
        return UsageError(
            f"{what}: {_said(error)}", hint="set AWS_DEFAULT_REGION, or region in the profile"
        )
    if isinstance(error, _BROKEN_CONFIG):
        return UsageError(f"{what}: {_said(error)}", hint="see ~/.aws/config, or AWS_CONFIG_FILE")
    hint = _hint(error)
    if hint is None:
        return None
    return StoreForbidden(f"{what}: no S3 credentials: {_said(error)}", hint=hint)


def _hint(error: Exception) -> str | None:
    """What to do about the credentials; None where ``error`` is not about them."""
    hint: str | None = None
    match error:
        case exceptions.NoCredentialsError() | exceptions.PartialCredentialsError():
            hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        case exceptions.SSOError() | exceptions.TokenRetrievalError():
            hint = f"aws sso login{_profile_option()}"
        case exceptions.LoginError():
            hint = f"aws login{_profile_option()}"
        case exceptions.RefreshWithMFAUnsupportedError():
            hint = "run it again; duration_seconds in the profile makes what a code gives last"
        case exceptions.CredentialRetrievalError():
            hint = f"run it by hand, and see what it says{_program()}"
        case ClientError() if error.operation_name in _GIVE_CREDENTIALS:
            hint = _of_denied(error.operation_name)
        case OSError() if error.filename is not None:
            hint = _of_file(os.fsdecode(error.filename))
    return hint


def _said(error: Exception) -> str:
    """What is wrong, without what others may have said in confidence: a program on its stderr, or
    a client of a header."""
    if isinstance(error, exceptions.CredentialRetrievalError):
        return _of_retrieval(error)
    if type(error) is exceptions.HTTPClientError:
        return type(error).__name__
    return f"{' '.join(str(error).split()):.{_MOST_SAID}}"


def _of_retrieval(error: exceptions.CredentialRetrievalError) -> str:
    provider, said = (str(error.kwargs[name]) for name in ("provider", "error_msg"))
    found = _OF_BOTOCORE.search(said)
    return f"{provider}: {'it gave none' if found is None else found[0]}"


def _of_denied(operation: str) -> str:
    if operation == "AssumeRoleWithWebIdentity":
        return f"does the role trust the token in {_web_identity_file()}?"
    if operation == "AssumeRole":
        return f"may this identity assume {_configured('role_arn') or 'the role'}?"
    return f"aws sso login{_profile_option()}"


def _of_file(file: str) -> str:
    if file == _web_identity_file():
        return "AWS_WEB_IDENTITY_TOKEN_FILE, or web_identity_token_file in the profile, names it"
    return "the AWS profile, or a variable AWS_…, names it"


def _web_identity_file() -> str | None:
    return os.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE") or _configured("web_identity_token_file")


def _program() -> str:
    """The program of a credential_process, without its arguments; empty where there is none."""
    command = _configured("credential_process")
    try:
        return f" (credential_process: {shlex.split(command)[0]})" if command else ""
    except (ValueError, IndexError):
        return " (credential_process)"


def _profile_option() -> str:
    profile = os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE")
    return f" --profile {shlex.quote(profile)}" if profile else ""


def _configured(name: str) -> str | None:
    """What the profile says, or the one that it takes its own credentials from."""
    session = botocore.session.get_session()
    try:
        profile = session.get_scoped_config()
        source = session.full_config["profiles"].get(profile.get("source_profile"), {})
    except BotoCoreError:
        return None
    found = profile.get(name) or source.get(name)
    return found if isinstance(found, str) else None


def ask(prompt: str) -> str:
    """A code, typed on the terminal of this process. Raises StoreForbidden where there is none, or
    nobody waits for it any more."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        raise StoreForbidden(
            f"a code is wanted ({prompt.strip().rstrip(':')}), and there is no terminal to ask on",
            hint="give it temporary credentials, as `aws sts assume-role` prints them",
        ) from None
    try:
        os.write(terminal, prompt.encode())
        while not thread_is_cancelled():
            if select.select([terminal], [], [], _LOOK_SECONDS)[0]:
                return os.read(terminal, 1024).decode(errors="replace").strip()
    finally:
        os.close(terminal)
    raise StoreForbidden("a code was asked for, and nobody waited for it")
