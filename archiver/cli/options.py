"""Options that several commands share, and the source that they configure."""

import functools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import click
from click.core import ParameterSource
from click.types import OptionHelpExtra

from archiver.cli import environment, runlog, usage
from archiver.cli.params import (
    AssertionText,
    CleanPath,
    Count,
    Duration,
    OneShard,
    ProxyUrl,
    Range,
    Real,
    Word,
)
from archiver.errors import EXIT_INTERRUPTED
from archiver.proxies import Proxies
from archiver.retry import RETRIES
from archiver.stray_characters import stray_characters_in
from archiver.times import ALL

F = TypeVar("F", bound=Callable[..., Any])

# Options of every day, which a help shows first, whatever else a command has.
_EVERYDAY: Final = (
    *("instance", "to", "set", "at", "remote", "check", "region", "range", "max-age"),
    *("sample", "since-verified", "assert", "rto", "rpo", "dry-run"),
)

SETTINGS = {"help_option_names": ["-h", "--help"], "show_default": True}


class _EnvironmentOption(click.Option):
    """An option that can also be set in the environment, under a name that its command sets."""

    def __init__(self, declarations: Sequence[str], **attributes: Any) -> None:
        names = re.split(r"[/\s]", " ".join(declarations))
        self.long_name = max(names, key=lambda name: name[:2] == "--").lstrip("-")
        super().__init__(declarations, **attributes)

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        value = super().resolve_envvar_value(ctx)
        if value is not None:
            wrong = stray_characters_in(
                value,
                quotes_at_end=isinstance(self.type, AssertionText),
                separators="\n\t" if self.multiple else "",
            )
            if wrong is not None:
                raise click.UsageError(f"{self.envvar} in the environment: {wrong}", ctx)
        return value

    def get_help_extra(self, ctx: click.Context) -> OptionHelpExtra:
        extra, kind = super().get_help_extra(ctx), self.type
        if "range" in extra and isinstance(kind, Count | Real):
            most = "or more" if kind.max is None else f"to {kind.max:g}"
            extra["range"] = f"{kind.min:g} {most}"
        return extra

    def get_error_hint(self, ctx: click.Context | None) -> str:
        hint = f"--{self.long_name}"
        source = ctx.get_parameter_source(self.name or "") if ctx is not None else None
        return f"{hint} ({self.envvar})" if source is ParameterSource.ENVIRONMENT else hint


def _rank(param: click.Parameter) -> int:
    """Where a help shows it; those of the same rank stay in their order."""
    long_name = param.long_name if isinstance(param, _EnvironmentOption) else ""
    return _EVERYDAY.index(long_name) if long_name in _EVERYDAY else len(_EVERYDAY)


class Command(click.Command):
    """A command whose options have their own environment variables."""

    def __init__(self, name: str, **attributes: Any) -> None:
        super().__init__(name, **attributes)
        self.params.sort(key=_rank)
        for param in self.params:
            if isinstance(param, _EnvironmentOption):
                param.envvar = param.envvar or environment.variable(name, param.long_name)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)  # click takes them out
        try:
            return self._parsed(ctx, args)
        except click.UsageError as error:
            if not ctx.resilient_parsing:
                why, defaults = usage.text(error), ctx.default_map or {}
                runlog.refused(self, given, error.exit_code, why, defaults)
            raise

    def _parsed(self, ctx: click.Context, args: list[str]) -> list[str]:
        # Before a missing option is reported: its variable may be set under another name.
        if not (ctx.resilient_parsing or set(args) & set(ctx.help_option_names)):
            environment.check(ctx, os.environ)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # while modules were imported
            if (path := ctx.params.get("log_file")) is not None:
                format_ = ctx.params["log_format"] or runlog.TEXT
                given = ["--log-file", str(path), "--log-format", format_]
                runlog.refused(self, given, EXIT_INTERRUPTED, "interrupted; nothing was started")
            raise


def command(
    name: str, cls: type[Command] = Command
) -> Callable[[Callable[..., Any]], click.Command]:
    """Decorate a function as the command ``name``."""
    prefix = environment.variable(name, "")
    epilog = f"Each option can also be set in the environment: {prefix} and its name in capitals."
    return click.command(name, cls=cls, context_settings=SETTINGS, epilog=epilog)


option = functools.partial(click.option, cls=_EnvironmentOption)


@dataclass(frozen=True, slots=True)
class Way:
    """How to reach the vendor: proxies, trusted hosts, for how many seconds to retry, and how many
    calls a minute of each action a region takes."""

    proxies: Proxies
    retry_for: float
    allow_hosts: tuple[str, ...]
    api_rate: int

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Way":
        """From the options, and the environment where they are not given. Raises UsageError."""
        return cls(
            given["proxies"] or Proxies.from_environment(os.environ),
            given["retry_for"],
            given.get("allow_hosts", ()),
            given["api_rate"],
        )


def range_option(what: str) -> Callable[[F], F]:
    """The option that selects backups by their start time; ``what`` begins its help."""
    return option(
        "--range",
        "time_range",
        type=Range(),
        help=f"{what}, e.g. 2026-11-01..2026-11-24, 2026-11-01, last-7d (UTC).  [default: {ALL}]",
    )


config_option = option(
    "--config",
    type=CleanPath(),
    metavar="FILE",
    default="/etc/archiver/archiver.toml",
    envvar="ARCHIVER_CONFIG",
    help="The file with the jobs; also ARCHIVER_CONFIG in the environment.",
)

max_age_option = option(
    "--max-age",
    type=Duration(),
    help="Exit with 1 if an instance has no complete backup younger than this, e.g. 26h.",
)


def shard_option(command: F) -> F:
    """The option that divides the instances among machines."""
    return option(
        "--shard",
        type=OneShard(),
        default="0/1",
        metavar="I/N",
        help="Only the instances of shard I of N, counted from 0: one for each machine.",
    )(command)


endpoint_option = option(
    "--endpoint", metavar="HOST", help="API host or URL (default: that of the region)."
)


def way_options(command: F) -> F:
    """Options of every command that reaches the vendor."""
    for declared in (
        option(
            "--api-rate",
            type=Count(1, 100_000),
            default=200,
            help="Maximum calls of an API action per minute, in each region.",
        ),
        option(
            "--proxy",
            "proxies",
            type=ProxyUrl(),
            metavar="URL",
            help="Proxy to use instead of HTTPS_PROXY and the like; 'none' for no proxy.",
        ),
    ):
        command = declared(command)
    return command


# For every command that uses the vendor or may use a bucket.
retry_option = option(
    "--retry-for",
    type=Duration(),
    default=f"{RETRIES.api_call.total / 60:g}m",
    help="How long to retry when the vendor or a bucket stops answering.",
)

allow_host_option = option(
    "--allow-host",
    "allow_hosts",
    multiple=True,
    metavar="HOST",
    help="Also download from this host if the API names it; .example.com includes subdomains.",
)


def output_options(command: F) -> F:
    """How much to print, and in which format."""
    for declared in reversed(
        (
            option(
                "--json", "as_json", is_flag=True, help="Print one JSON object per line on stdout."
            ),
            option("-q", "--quiet", is_flag=True, help="Print errors only."),
            option(
                "-v",
                "--verbose",
                count=True,
                show_default=False,
                help="Print more; -vv adds each request and tracebacks.",
            ),
            option(
                "--log-file",
                type=CleanPath(),
                metavar="FILE",
                help="Append a log of the run to this file; -vv adds each request.",
            ),
            option(
                "--metrics-file",
                type=CleanPath(),
                metavar="FILE",
                help="Replace this file by Prometheus metrics of the run.",
            ),
            option(
                "--log-format",
                type=Word(runlog.FORMATS),
                help="Lines of text, or one JSON object per line.  [default: text]",
            ),
        )
    ):
        command = declared(command)
    return command
