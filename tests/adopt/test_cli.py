"""``archiver adopt``, as it is typed."""

import json
from pathlib import Path

import pytest

from tests.adopt.made import dump, put
from tests.cli.conftest import Run, environ, run  # noqa: F401

ADOPT = ("adopt", "place", "--to", "kept")


async def test_again_and_again(run: Run, tmp_path: Path) -> None:  # noqa: F811 - a fixture
    put(tmp_path / "place/dump-20261101.rdb", dump(3000, 1))
    put(tmp_path / "place/temp-1.rdb", b"REDIS")
    would = await run(*ADOPT, "--instance", "shop", "--dry-run")
    assert (would.code, (tmp_path / "kept").exists()) == (0, False)
    [planned] = [line for line in would.err.splitlines() if line.startswith("would archive: ")]
    assert planned.startswith("would archive: shop-dump_20261101.")
    assert planned.endswith(" KiB, started 2026-11-01 00:00")
    first = await run(*ADOPT, "--instance", "shop", "--json")
    assert first.code == 0
    told = [json.loads(line) for line in first.out.splitlines()]
    [left] = [one for one in told if one["event"] == "not_taken"]
    assert (left["instance_id"], left["name"]) == ("shop", f"{tmp_path}/place/temp-1.rdb")
    assert (told[-1]["archived"], told[-1]["exit_code"]) == (1, 0)
    again = await run(*ADOPT, "--instance", "shop", "--quiet")
    assert (again.code, again.err) == (0, "")
    # Other commands find it by its name.
    for words in (("ls", "kept"), ("verify", "kept"), ("restore", "kept", "--to", "restored")):
        done = await run(*words, "--instance", "shop")
        assert done.code == 0, done.err
    assert len(list((tmp_path / "restored").rglob("*.rdb"))) == 1


async def test_a_file_that_is_not_finished_has_one_line(
    run: Run, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    put(tmp_path / "place/temp-1.rdb", b"REDIS")
    done = await run(*ADOPT, "--instance", "shop", "-v")
    assert done.code == 0
    [line] = [line for line in done.err.splitlines() if "temp-1.rdb" in line or "temp_1" in line]
    assert line.startswith(f"not taken: {tmp_path}/place/temp-1.rdb: by its name it is still being")
    assert "1 backup not finished yet" in done.err


async def test_a_place_that_does_not_exist(run: Run, tmp_path: Path) -> None:  # noqa: F811
    done = await run(*ADOPT, "--instance", "shop")
    assert (done.code, f"no such directory: {tmp_path}/place " in done.err) == (2, True)
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (("--instance", "shop", "--pattern", "{x}.rdb"), 2, "{x} is none of"),
        (("--instance", "../shop"), 2, "invalid instance ID"),
        (("--instance", "drills"), 2, "invalid instance ID"),
        (("--instance", "all"), 2, "'all' is not possible here"),
        ((), 2, "--instance"),
        (("--instance", "shop"), 1, "there is no file that is a backup by its name"),
    ],
)
async def test_what_is_refused(
    words: tuple[str, ...], code: int, why: str, run: Run, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    (tmp_path / "place").mkdir()
    done = await run(*ADOPT, *words)
    assert done.code == code
    assert why in done.err
