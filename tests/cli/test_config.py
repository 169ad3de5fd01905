"""archiver.toml: what it means, and its mistakes; its schema."""

import contextlib
import json
import re
from pathlib import Path

import click
import jsonschema
import pytest

from archiver.cli.config_file import read
from archiver.cli.config_keys import job_commands
from archiver.cli.config_tables import BadConfig
from archiver.cli.main import main
from archiver.cli.toml_lines import lines_of
from tests.docs.pages import CHECKOUT
from tests.faults.power import Ended, command

GOOD = """\
[archives]
main = "/srv/redis-backups"

[archives.offsite]
place = "s3://offsite/redis"
s3_endpoint = "https://s3.example.com"
s3_storage_class = "STANDARD_IA"

[fleets.prod]
region = ["cn-hangzhou", "cn-beijing"]
tag = "env=prod"

[fleets.two]
region = "cn-hangzhou"
instance = ["r-a", "r-b"]

[defaults]
quiet = true
lock_wait = "30m"

[defaults.pull]
workers = 8

[jobs.nightly]
run = "pull"
fleet = "prod"
to = "main"
range = 2026-11-01
progress = false
verbose = 2

[jobs.copy]
run = "copy"
src = "main"
dst = "offsite"
quiet = false

[jobs.back]
run = "copy"
src = "offsite"
dst = "./b"

[jobs.drill]
run = "drill"
archive = "main"
fleet = "two"
assert = ["dbsize >= 2", "exists user:1"]

[jobs.status]
run = "status"
archive = ["main", "offsite"]
s3_endpoint = "https://other.example.com"
"""
SHOWN = {
    "nightly": "archiver pull --to /srv/redis-backups --region cn-hangzhou --region cn-beijing "
    "--range 2026-11-01 --tag env=prod --workers 8 --no-progress --lock-wait 30m "
    "--quiet --verbose --verbose",
    "copy": "archiver copy /srv/redis-backups s3://offsite/redis --lock-wait 30m "
    "--s3-endpoint https://s3.example.com --s3-storage-class STANDARD_IA",
    # What is only read gets no storage class.
    "back": "archiver copy s3://offsite/redis ./b --lock-wait 30m "
    "--s3-endpoint https://s3.example.com --quiet",
    # An instance that is named needs no region.
    "drill": "archiver drill /srv/redis-backups --instance r-a --instance r-b "
    "--assert 'dbsize >= 2' --assert 'exists user:1' --lock-wait 30m --quiet",
    "status": "archiver status /srv/redis-backups s3://offsite/redis "
    "--s3-endpoint https://other.example.com --quiet",
}
# Each with its line in the file that they make together, and what is said of it.
MISTAKES = [
    ("archive = '/srv/x'", "archive: no such table; did you mean archives?"),
    ("[archives]\noss = 'oss://b/x'", "archives.oss: oss:// is not supported (use s3://… with"),
    ("web = 's3://me:hunter2@b/x'", "archives.web: a URL with a user or password is a secret"),
    ("source = '/srv/x'", "archives.source: means the vendor; choose another name"),
    ("[archives.main]\nplace = '/srv/x'\ns3_sse = 'AES256'", "archives.main.s3_sse: works only in"),
    ("[fleets.prod]\nregoin = 'cn-hangzhou'", "fleets.prod.regoin: no such key; did you mean reg"),
    ("tag = 'env'", "fleets.prod.tag: invalid tag 'env' (use KEY=VALUE)"),
    ("[fleets.many]\nname = 'x-*'\nname_ = 1", "fleets.many.name_: no such key; did you mean nam"),
    ("[defaults]\nto = 'main'", "defaults.to: differs between commands; set it in [defaults.COMM"),
    ("quiet = 'yes'", "defaults.quiet: must be true or false, without quotes"),
    ("s3_endpoint = 'https://me:hunter2@x'", "defaults.s3_endpoint: a URL with a user or password"),
    ("[defaults.pul]", "defaults.pul: no such command; did you mean pull?"),
    ("[jobs.a]\nrun = 'pul'", "jobs.a.run: no job can run 'pul'; did you mean pull?"),
    ("[jobs.b]\nrun = 'pull'\nto = 'mian'", "jobs.b.to: no archive is called 'mian'; did you mea"),
    ("fleet = 'prd'", "jobs.b.fleet: no fleet is called 'prd'; did you mean prod?"),
    ("rnage = 'last-7d'", "jobs.b.rnage: no such key; did you mean range?"),
    ("range = 'last-week'", "jobs.b.range: "),
    ("workers = 1000", "jobs.b.workers: '1000' is not a whole number from 1 to 256"),
    ("network = 'publik'", "jobs.b.network: 'publik' is not one of auto, intranet, public; did"),
    ("no_progress = true", "jobs.b.no_progress: no such key; write progress = false"),
    ("limit_rate = [1, 2]", "jobs.b.limit_rate: takes one value, not a list"),
    ("part_size = true", "jobs.b.part_size: must be a text for part_size (SIZE), not true or fal"),
    ("type = []", "jobs.b.type: the list is empty; leave the key out instead"),
    ("endpoint = ''", "jobs.b.endpoint: is empty; leave the key out instead"),
    ("allow_host = ' x'", "jobs.b.allow_host: there are blanks around it"),
    ("proxy = 'me:hunter2@proxy:3128'", "jobs.b.proxy: a proxy with a user or password is a sec"),
    ("access_key_secret = 'hunter2'", "jobs.b.access_key_secret: secrets are not kept in this"),
    ("name = 'LTAI5tTestTestTestTest42'", "jobs.b.name: access keys are not kept in this file"),
    ("[jobs.c]\narchive = '/srv/x'", "jobs.c: needs run = "),
    ("[jobs.d]\nrun = 'copy'\nsrc = '/srv/x'", "jobs.d: needs dst = …, the DST of archiver copy"),
    ("[jobs.e]\nrun = 'drill'\narchive = '/srv/x'\nfleet = 'many'", "jobs.e.fleet: fleet many cho"),
    ("[jobs.'f g']\nrun = 'run'", "jobs.f g: a name has only letters, digits, _ and -"),
    ("", "jobs.f g.run: no job can run 'run'"),
]  # fmt: skip


@pytest.fixture
def no_blocking_on_the_loop() -> None:
    """The command line reads the file before it begins."""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ARCHIVER_CONFIG", "jobs.toml")


def config(text: str, *words: str) -> Ended:
    Path("jobs.toml").write_text(text)
    return command("config", *(words or ("check",)))


def schema() -> dict[str, object]:
    ended = command("config", "schema")
    assert ended.code == 0
    found: dict[str, object] = json.loads(ended.out)
    return found


def test_jobs_are_the_commands_that_one_would_type() -> None:
    assert config(GOOD) == Ended(
        0, "jobs.toml: no mistakes; jobs: nightly, copy, back, drill, status\n", ""
    )
    for name, typed in SHOWN.items():
        ended = config(GOOD, "show", name)
        assert ended.out.splitlines()[0] == f"{name}: {typed}", ended
    every = config(GOOD, "show").out
    assert [line.split(":")[0] for line in every.splitlines() if line[0] != " "] == [*SHOWN]


def test_a_value_says_where_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHIVER_PULL_WORKERS", "3")
    first, *lines = config(GOOD, "show", "nightly").out.splitlines()
    assert "--workers" not in first
    assert "  workers: from ARCHIVER_PULL_WORKERS in the environment" in lines
    assert "  tag: --tag env=prod  (jobs.toml:11 [fleets.prod])" in lines
    assert "  lock_wait: --lock-wait 30m  (jobs.toml:19 [defaults])" in lines
    assert "  range: --range 2026-11-01  (jobs.toml:28 [jobs.nightly])" in lines


def test_every_mistake_has_a_line() -> None:
    ended = config("\n".join(text for text, _ in MISTAKES if text))
    assert (ended.code, ended.out) == (2, "")
    lines, number = ended.err.splitlines(), 0
    for (text, why), line in zip(MISTAKES, lines, strict=True):
        number += text.count("\n") + 1 if text else 0
        # What is missing has the line of its table.
        where = number - text.count("\n") if "needs" in why else number
        where -= 1 if why.startswith("jobs.f g: ") else 0
        assert line.startswith(f"archiver: jobs.toml:{where}: {why}"), text
    assert "hunter2" not in ended.err
    assert "LTAI" not in ended.err


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[jobs.a]\nrun = pull\n", "2: run: not TOML: invalid value; texts stand in quotes, as in"),
        ("[jobs.a]\nrun = 'pull\n", "2: run: not TOML: "),
        ("[jobs.a]\n\n[jobs.a]\n", "3: not TOML: cannot declare"),
        ("[jobs.a]\nrun = 'ls'\nrun = 'ls'\n", "3: run: not TOML: cannot overwrite a value"),
        ("x = [1,\n\n", "1: x: not TOML: "),
        ("\ufeff[jobs]\n", "1: begins with a byte order mark"),
        ("jobs = 1\n", "1: jobs: must be a table: [jobs]"),
        ("[[jobs]]\n", "1: jobs: must be a table: [jobs]"),
        ("[jobs]\na = 1\n", "2: jobs.a: must be a table: [jobs.a]"),
        ("[fleets.a]\n", "1: fleets.a: chooses nothing; set one of instance, region, tag"),
        ("[archives.a]\n", "1: archives.a.place: needs place = "),
        ("[fleets.a]\ninstance = 'r-a'\ntag = 'a=b'\n", "3: fleets.a.tag: chooses among all"),
    ],
)
def test_a_mistake_that_stands_alone(text: str, line: str) -> None:
    ended = config(text)
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1, ended.err
    assert ended.err.startswith(f"archiver: jobs.toml:{line}")


def test_buckets_of_one_command_must_be_reached_in_the_same_way() -> None:
    """Else the endpoint of one would also be the other's."""
    copy = "[jobs.copy]\nrun = 'copy'\nsrc = 'offsite'\ndst = 's3://third/redis'\n"
    archives = GOOD[: GOOD.index("[fleets")]
    ended = config(archives + copy)
    assert "jobs.copy: its buckets differ in s3_endpoint" in ended.err
    assert config(f"{archives}{copy}s3_endpoint = 'https://s3.example.com'\n").code == 0


def test_a_fleet_and_the_same_key_in_the_job_contradict_each_other() -> None:
    fleet = "[fleets.a]\ninstance = 'r-a'\n[jobs.b]\nrun = 'ls'\narchive = './a'\nfleet = 'a'\n"
    assert config(fleet).code == 0
    ended = config(f"{fleet}instance = 'r-b'\n")
    assert "jobs.toml:7: jobs.b.instance: fleet a sets it, too" in ended.err


def test_what_an_environment_variable_sets_is_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "[jobs.a]\nrun = 'pull'\n"
    assert "jobs.a: needs to = …, as --to of archiver pull" in config(text).err
    monkeypatch.setenv("ARCHIVER_PULL_TO", "./b")
    assert config(text).code == 0


ODD_VALUES = """\
1 -1 1.5 nan true 'x' '' [] [1] [[]] {a=1} {} ['x',{}] 2026-11-01 2026-11-01T02:15:00Z 02:15:00
"\\u0000" 'a=b' ['a','a']
"""


@pytest.mark.parametrize("value", ODD_VALUES.split())
def test_a_value_of_another_kind_is_a_mistake_at_most(value: str) -> None:
    """Wherever it stands."""
    commands, path = job_commands(click.Context(main)), Path("jobs.toml")
    lines = GOOD.splitlines()
    for number, line in enumerate(lines):
        key, equals, _ = line.partition(" = ")
        path.write_text("\n".join([*lines[:number], f"{key} = {value}", *lines[number + 1 :]]))
        if equals:
            with contextlib.suppress(BadConfig):
                read(path, commands)


def test_a_file_that_cannot_be_read() -> None:
    assert "cannot be read: No such file" in command("config", "check").err
    Path("jobs.toml").write_bytes(b"\n# \xff\n")
    assert "jobs.toml:2: not UTF-8" in command("config", "check").err
    ended = config(GOOD, "show", "nihgtly")
    assert (ended.code, "did you mean nightly?" in ended.err) == (2, True)
    assert "config check takes no JOB" in config(GOOD, "check", "nightly").err


def test_the_published_schema_is_that_of_the_commands() -> None:
    published = json.loads((CHECKOUT / "docs/archiver.schema.json").read_text())
    assert published == schema(), "run: archiver config schema > docs/archiver.schema.json"


def test_the_schema_takes_what_the_reader_takes() -> None:
    import tomllib

    jsonschema.Draft7Validator.check_schema(schema())
    judge = jsonschema.Draft7Validator(schema())
    document = tomllib.loads(GOOD)
    document["jobs"]["nightly"]["range"] = "2026-11-01"  # JSON has no dates
    assert list(judge.iter_errors(document)) == []
    for wrong in (
        "[archive]", "[jobs.a]\nrun = 'pul'", "[jobs.a]\nrun = 'pull'\nrnage = 'x'",
        "[jobs.a]\nrun = 'pull'\nworkers = 1000", "[jobs.a]\nrun = 'pull'\nnetwork = 'x'",
        "[jobs.a]\nrun = 'pull'\nquiet = 'yes'", "[defaults]\nto = 'x'", "[jobs.'a b']\nrun = 'ls'",
        "[archives]\na = {}", "[fleets.a]\nregoin = 'x'",
    ):  # fmt: skip
        assert list(judge.iter_errors(tomllib.loads(wrong))), wrong
        assert config(wrong).code == 2


def test_every_option_is_a_key_by_itself() -> None:
    """Also one that somebody adds tomorrow."""
    shown = json.dumps(schema())
    for name in ("pull", "verify", "drill"):
        options = re.findall(
            r"^ +(?:-\w, )?--([a-z0-9-]+)", command(name, "--help").out, re.MULTILINE
        )
        for option in set(options) - {"help"}:
            assert f'"{option.replace("-", "_")}"' in shown


def test_lines_are_those_of_the_statements() -> None:
    text = (
        "# a,\n\n[jobs.'x.y']  # c\r\nrun = '''\npull\n[no]\n'''\n"
        'a.b = {c = 1, "d" = [2]}\nlist = [ # x,\n  "[no]",\n  1,\n]\n\n[[t]]\nz = 1\n'
        "[t.u]\nv = 2\n"
    )
    found = lines_of(text)
    assert found == {
        ("jobs",): 3, ("jobs", "x.y"): 3, ("jobs", "x.y", "run"): 4, ("jobs", "x.y", "a"): 8,
        ("jobs", "x.y", "a", "b"): 8, ("jobs", "x.y", "a", "b", "c"): 8,
        ("jobs", "x.y", "a", "b", "d"): 8, ("jobs", "x.y", "list"): 9, ("t",): 14,
        ("t", "z"): 15, ("t", "u"): 16, ("t", "u", "v"): 17,
    }  # fmt: skip


def test_help_has_each_command_once_by_its_purpose() -> None:
    text = command("--help").out
    headings = re.findall(r"^(\w.*):$", text, re.MULTILINE)
    assert headings[1:] == ["Get backups in", "Look and check", "Recover", "Operate"]
    names = re.findall(r"^  ([a-z]+)  +[A-Z]", text, re.MULTILINE)
    assert names == main.list_commands(click.Context(main))
