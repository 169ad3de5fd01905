"""``archiver emulate``."""

import os
import secrets
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from archiver.cli.options import command, option
from archiver.cli.params import CleanPath, Count, Real, Size

_CHANCE = Real(0, 1)


@command("emulate")
@click.argument("directory", type=CleanPath())
@option(
    "--port",
    type=Count(0, 65535),
    default=8080,
    help="Port to listen on; 0 picks a free one.",
)
@option("--host", default="127.0.0.1", help="Address to listen on.")
@option("--intranet-host", help="host:port in intranet URLs (default: its own).")
@option("--latency", type=Real(0), default=0.0, help="Seconds to wait before each answer.")
@option("--rate", type=Size(), help="Bytes per second of each object's connection.")
@option("--drop", type=_CHANCE, default=0.0, help="Probability that a body is cut short.")
@option("--corrupt", type=_CHANCE, default=0.0, help="Probability of a flipped byte in a body.")
@option("--expire-after", type=Count(0), default=3600, help="Seconds until a URL expires.")
@option("--throttle", type=_CHANCE, default=0.0, help="Probability of Throttling.User.")
@option("--server-errors", type=_CHANCE, default=0.0, help="Probability of a 503.")
@option("--quota", type=Count(1), help="Calls a minute for each region and action.")
@option("--policy", type=CleanPath(), metavar="FILE", help="RAM policy of the access key, as JSON.")
@option(
    "--backup-time",
    type=Real(0),
    default=5.0,
    help="Seconds that a backup on demand takes.",
)
@option("--seed", type=int, metavar="NUMBER", default=0, help="Seed for the probabilities.")
def emulate(directory: Path, **given: Any) -> None:
    """Serve DIRECTORY as the vendor's API and object store would.

    Files lie in DIRECTORY/<instance id>/, or for a cluster in DIRECTORY/<instance id>/<node>/.
    DIRECTORY/instances.json may say what the instances are.
    The access key is the one in ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET,
    or a new one that is printed.
    """
    from archiver.cli.run import run

    run(lambda: _emulate(directory, given), verbose=0, on_interrupt="the emulator shuts down")


async def _emulate(directory: Path, given: dict[str, Any]) -> None:
    import anyio

    from archiver.cli.run import say
    from archiver.concurrency import in_thread
    from archiver.emulator import Emulator, Faults, Policy, Quota
    from archiver.emulator.catalogue import odd_files

    key_id = os.environ.get("ALIBABA_CLOUD_ACCESS_KEY_ID")
    secret = os.environ.get("ALIBABA_CLOUD_ACCESS_KEY_SECRET")
    if not (key_id and secret):
        key_id, secret = f"LTAI{secrets.token_hex(10)}", secrets.token_hex(15)
        click.echo(f"export ALIBABA_CLOUD_ACCESS_KEY_ID={key_id}")
        click.echo(f"export ALIBABA_CLOUD_ACCESS_KEY_SECRET={secret}")
    policy = given["policy"] and await in_thread(Policy.read, given["policy"])
    async with Emulator(
        directory,
        access_key_id=key_id,
        access_key_secret=secret,
        security_token=os.environ.get("ALIBABA_CLOUD_SECURITY_TOKEN"),
        host=given["host"],
        port=given["port"],
        intranet_host=given["intranet_host"],
        policy=policy,
        quotas={("*", "*"): Quota(given["quota"])} if given["quota"] else None,
        backup_seconds=given["backup_time"],
        faults=Faults(**{field.name: given[field.name] for field in fields(Faults)}),
    ) as emulator:
        for text in await in_thread(odd_files, directory):
            say(f"note: {text}")
        click.echo(f"ready: pull with --endpoint {emulator.endpoint}")
        await anyio.sleep_forever()
