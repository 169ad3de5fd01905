"""``archiver run``."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from archiver.cli import streams
from archiver.cli.config_keys import job_commands
from archiver.cli.options import Command, command, config_option, option
from archiver.errors import EXIT_INTERRUPTED, EXIT_OK, UsageError, worst_exit_code

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from archiver.cli.config_jobs import Job

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ADDED: Final = "archiver.added"


class _WithOptionsOfAJob(Command):
    """A command that keeps what follows ``--``, which is for the job's command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        at = args.index("--") if "--" in args else len(args)
        ctx.meta[_ADDED] = args[at + 1 :]
        return super().parse_args(ctx, args[:at])


@command("run", cls=_WithOptionsOfAJob)
@click.argument("names", metavar="JOB...", nargs=-1, required=True)
@option("--continue", "goes_on", is_flag=True, help="Run the other jobs after one that fails.")
@option("-q", "--quiet", is_flag=True, help="Do not name each job; print errors only.")
@config_option
@click.pass_context
def run(
    ctx: click.Context, names: tuple[str, ...], config: Path, *, goes_on: bool, quiet: bool
) -> None:
    """Run jobs of archiver.toml, one after the other.

    Each runs as if its command had been typed. The first that fails ends the run, unless
    --continue is given. Options after -- are added to the command of a single job. Options beat
    the environment, and that beats the file.

    \b
    Examples:
      archiver run nightly
      archiver run nightly verify offsite --continue
      archiver run nightly -- --dry-run
    """
    from archiver.cli.config import read_or_exit

    added: list[str] = ctx.meta[_ADDED]
    if added and len(names) > 1:
        raise click.UsageError("options after -- are for a single job, and several are given")
    found = read_or_exit(config, ctx)
    try:
        jobs = [found.job(name) for name in names]
    except UsageError as error:
        raise click.UsageError(str(error)) from None
    sys.exit(_Run(ctx, added, is_quiet=quiet).all(jobs, goes_on=goes_on))


@dataclass(slots=True)
class _Run:
    """Runs jobs, each in a process of its own, which a signal to this one is passed on to."""

    ctx: click.Context
    added: Sequence[str]
    is_quiet: bool
    process: "BaseProcess | None" = None
    was_interrupted: bool = False
    failed: dict[str, int] = field(default_factory=dict)

    def all(self, jobs: "Sequence[Job]", *, goes_on: bool) -> int:
        """Run the jobs; returns the exit code."""
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:  # as under nohup
                signal.signal(number, self._pass_on)
        left = list(jobs)
        while left and not self.was_interrupted and (goes_on or not self.failed):
            job = left.pop(0)
            if len(jobs) > 1 and not self.is_quiet:
                click.echo(f"job {job.name}: archiver {job.command}", err=True)
            code = self._one(job, before)
            self.was_interrupted |= code == EXIT_INTERRUPTED
            if code != EXIT_OK:
                self.failed[job.name] = code
        if len(jobs) > 1 and (self.failed or left):
            self._say_what_failed(len(jobs), left)
        return self._code(left)

    def _code(self, left: "Sequence[Job]") -> int:
        if EXIT_INTERRUPTED in self.failed.values() or (self.was_interrupted and left):
            return EXIT_INTERRUPTED
        return worst_exit_code(self.failed.values()) or max(self.failed.values(), default=EXIT_OK)

    def _one(self, job: "Job", before: dict[signal.Signals, Any]) -> int:
        """The exit code of a job."""
        arguments = (self.ctx.find_root().command, job, list(self.added), before)
        process = multiprocessing.get_context("fork").Process(target=_typed, args=arguments)
        sys.stdout.flush()
        # Until the new process has handlers of its own, and this one knows its number.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        process.start()
        self.process = process
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        process.join()
        self.process = None
        code = process.exitcode or EXIT_OK
        if code < 0:
            name = signal.Signals(-code).name
            click.echo(f"archiver: job {job.name} was ended by {name}", err=True)
            return 1
        return code

    def _pass_on(self, number: int, frame: object) -> None:
        self.was_interrupted = True
        if self.process is not None and self.process.pid is not None:
            os.kill(self.process.pid, number)

    def _say_what_failed(self, count: int, left: "Sequence[Job]") -> None:
        failed = ", ".join(f"{name} (exit code {code})" for name, code in self.failed.items())
        text = f"archiver: {len(self.failed)} of {count} jobs failed: {failed}"
        if not failed:  # the signal came when one had just succeeded
            text = "archiver: interrupted"
        if left:
            text += f"; not run: {', '.join(job.name for job in left)}"
        click.echo(streams.safe(text), err=True)


def _typed(
    root: click.Group, job: "Job", added: list[str], handlers: dict[signal.Signals, Any]
) -> None:
    """Be the command of a job, with the file's values as its defaults."""
    for number, handler in handlers.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    context = click.Context(root, info_name="archiver")
    defaults = job.defaults(job_commands(context)[job.command])
    root.main([job.command, *added], prog_name="archiver", default_map={job.command: defaults})
