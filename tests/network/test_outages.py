"""A vendor that does not answer: waited for, said once, and given up soon where it is nobody."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from archiver import Archive, PullOptions, TairSource, TransferOptions, events, pull, static_chain
from archiver.emulator import Emulator, Faults
from archiver.errors import (
    BadCredentials,
    SourceUnreachable,
    UnknownInstance,
    others_not_asked,
)
from archiver.retry import RetryPolicy
from archiver.sources.alibaba import api as tair
from examples.sample_rdb import write_rdb
from tests.cli.conftest import Run
from tests.conftest import (
    INSTANCE,
    EmulatorMaker,
    credentials,
    everything,
    source_of,
)

# So many instances that waiting for each of them would be seen.
MANY = [f"r-{n}" for n in range(16)]
# As the default, and quick.
HASTY = RetryPolicy(first_wait=0.001, max_wait=0.002, give_up_after=0.2)


def of_many(*names: str) -> list[str]:
    return [word for name in (*names, *MANY) for word in ("--instance", name)]


async def test_nobody_there_is_said_once(run: Run, tmp_path: Path) -> None:
    result = await run(
        "pull", *of_many(), "--to", "archive", "--retry-for", "1s", "-q",
        ARCHIVER_PULL_ENDPOINT="http://127.0.0.1:1",
    )  # fmt: skip
    assert result.code == 5
    [line] = result.err.splitlines()
    assert "no response from 127.0.0.1:1" in line
    assert "r-0" in line
    assert "15 more instances were not listed" in line
    assert not (tmp_path / "archive").exists()
    assert others_not_asked(1) == "1 more instance was not listed"


async def test_a_wrong_key_is_said_once(run: Run, emulator: Emulator) -> None:
    result = await run(
        "pull", *of_many(), "--to", "archive", "-q", ALIBABA_CLOUD_ACCESS_KEY_SECRET="wrong"
    )
    assert result.code == 4
    assert len(result.err.splitlines()) == 1
    assert emulator.tally.api_calls == 2  # they are looked up, and one is listed


async def test_a_deleted_instance_fails_alone(files: Path, run: Run) -> None:
    write_rdb(files / INSTANCE / "a.rdb", 2000)
    result = await run(
        "pull", "--instance", "r-gone", "--instance", INSTANCE, "--to", "archive", "-q"
    )
    assert result.code == 1
    assert result.err.count("r-gone") == 1
    assert "InvalidInstanceId.NotFound" in result.err
    again = await run("ls", "archive")
    assert "1 backup" in again.err


async def test_ls_goes_on_without_a_deleted_instance(files: Path, run: Run) -> None:
    write_rdb(files / INSTANCE / "a.rdb", 2000)
    result = await run("ls", "--instance", "r-gone", "--instance", INSTANCE)
    assert result.code == 1
    assert result.err.count("r-gone") == 1
    assert INSTANCE in result.out
    alone = await run("ls", "--instance", "r-gone")
    assert alone.code == 1
    assert len(alone.err.splitlines()) == 1
    assert alone.out == ""


async def test_ls_asks_nobody_for_the_others(run: Run, emulator: Emulator) -> None:
    result = await run("ls", *of_many(), ALIBABA_CLOUD_ACCESS_KEY_SECRET="wrong")
    assert result.code == 4
    assert len(result.err.splitlines()) == 1
    assert emulator.tally.api_calls == 2  # they are looked up, and one is listed


@pytest.mark.parametrize("kind", [SourceUnreachable, BadCredentials, UnknownInstance])
async def test_what_was_listed_before_comes_home(
    files: Path, emulator: Emulator, archive: Archive, kind: type[Exception]
) -> None:
    """Only what would be the same for all ends the listing; what one failure is, is of one."""
    write_rdb(files / INSTANCE / "a.rdb", 2000)
    (files / "r-other").mkdir()
    write_rdb(files / "r-other" / "b.rdb", 2000, 1)
    async with source_of(emulator) as source:
        pages, asked = source.pages, list[str]()

        async def failing(query: object) -> AsyncIterator[object]:
            asked.append(query.instance_id)  # type: ignore[attr-defined]
            if asked[-1] == "r-fails":
                raise kind("so it is")
            async for page in pages(query):  # type: ignore[arg-type]
                yield page

        source.pages = failing  # type: ignore[method-assign,assignment]
        queries = [everything(), everything("r-fails"), everything("r-other")]
        summary = await pull(source, archive, queries)
    [failure] = summary.failures
    assert failure.subject == "r-fails"
    assert summary.archived == (2 if kind is UnknownInstance else 1)
    assert ("1 more" in str(failure.error)) is (kind is not UnknownInstance)


@asynccontextmanager
async def vendor_that(
    answers: Callable[[int], Awaitable[web.StreamResponse | None]], emulator: Emulator
) -> AsyncIterator[str]:
    """The emulator's API, after ``answers`` had its say of each request, by its number."""
    count = 0

    async def serve(request: web.Request) -> web.StreamResponse:
        nonlocal count
        count += 1
        said = await answers(count)
        return said if said is not None else await emulator._serve_api(request)

    app = web.Application()
    app.router.add_route("*", "/", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def hang_up(_: int) -> web.StreamResponse:
    raise asyncio.CancelledError


async def test_one_that_answered_is_waited_for_longer(
    files: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer at all is enough after FIRST_SECONDS, unless there was one before."""
    monkeypatch.setattr(tair, "FIRST_SECONDS", 0.0)
    write_rdb(files / INSTANCE / "a.rdb", 2000)

    async def after_the_first(number: int) -> web.StreamResponse | None:
        return await hang_up(number) if 1 < number < 6 else None

    patient = replace(HASTY, give_up_after=60.0)
    for answers, comes in ((hang_up, False), (after_the_first, True)):
        async with vendor_that(answers, emulator) as endpoint:
            waits: list[events.Event] = []
            async with TairSource(
                endpoint, static_chain(credentials()).get, retry=patient, observer=waits.append
            ) as source:
                if comes:
                    assert [page async for page in source.pages(everything())]
                    assert [page async for page in source.pages(everything())]
                    assert sum(isinstance(one, events.Retrying) for one in waits) == 4
                else:
                    with pytest.raises(SourceUnreachable):
                        _ = [page async for page in source.pages(everything())]
                    assert waits == []


async def test_a_vendor_that_is_busy_is_one_that_answered(
    files: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tair, "FIRST_SECONDS", 0.0)
    write_rdb(files / INSTANCE / "a.rdb", 2000)

    async def busy(number: int) -> web.StreamResponse | None:
        return web.Response(status=503) if number < 4 else None

    async with (
        vendor_that(busy, emulator) as endpoint,
        TairSource(
            endpoint, static_chain(credentials()).get, retry=replace(HASTY, give_up_after=60.0)
        ) as source,
    ):
        assert [page async for page in source.pages(everything())]


async def test_a_long_outage_of_the_files_ends_the_run_soon(
    files: Path, emulator_of: EmulatorMaker, archive: Archive
) -> None:
    """Each is given up by itself, and they do not wait one after the other."""
    for n in range(8):
        write_rdb(files / INSTANCE / f"{n}.rdb", 400_000, n)
    emulator = await emulator_of(files, public_host="127.0.0.1:1", intranet_host="127.0.0.1:1")
    waits: list[events.Retrying] = []

    def observe(event: events.Event) -> None:
        if isinstance(event, events.Retrying):
            waits.append(event)

    policy = RetryPolicy(first_wait=0.2, max_wait=0.2, give_up_after=0.5)
    options = PullOptions(workers=1, transfer=TransferOptions(retry=policy))
    async with source_of(emulator) as source:
        summary = await pull(source, archive, [everything()], options, observe)
    assert len(summary.failures) == 8
    assert {type(one.error) for one in summary.failures} == {SourceUnreachable}
    assert summary.exit_code == 5
    assert len({event.subject for event in waits}) == 1


async def test_an_outage_that_ends_is_waited_out(
    files: Path, emulator: Emulator, archive: Archive
) -> None:
    for n, size in enumerate((20_000, 400_000)):
        write_rdb(files / INSTANCE / f"{n}.rdb", size, n)
    emulator.faults = Faults(server_errors=1.0)

    def observe(event: events.Event) -> None:
        if isinstance(event, events.Retrying) and event.attempt >= 9:
            emulator.faults = Faults()

    patient = replace(HASTY, give_up_after=60.0)
    options = PullOptions(transfer=TransferOptions(retry=patient))
    async with source_of(emulator, retry=patient, observer=observe) as source:
        summary = await pull(source, archive, [everything()], options, observe)
    assert (summary.archived, summary.failures) == (2, [])
