"""``--metrics-file``, read as Prometheus reads it."""

import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from archiver.cli.metrics import last_success
from archiver.cli.status_metrics import _GAUGES
from tests.cli.conftest import Run
from tests.conftest import INSTANCE
from tests.examples import manifests

RULES = Path("examples/prometheus/archiver-alerts.yml")
DASHBOARD = Path("examples/prometheus/archiver-dashboard.json")


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by its name and labels; none comes twice."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found
            found[key] = sample.value
    return found


def of(path: Path, **labels: str) -> dict[str, float]:
    """The samples of a file with these labels at least, by name and the other labels."""
    found = {}
    for (name, own), value in samples(path.read_text()).items():
        if labels.items() <= dict(own).items():
            other = [text for key, text in own if key not in labels]
            found["/".join([name, *other])] = value
    return found


async def test_a_pull_that_succeeds_and_one_that_fails(run: Run, tmp_path: Path) -> None:
    pull = ("pull", "--instance", INSTANCE, "--to", "archive", "--metrics-file", "nightly.prom")
    before = time.time()
    assert (await run(*pull)).code == 0
    path = tmp_path / "nightly.prom"
    assert path.stat().st_mode & 0o777 == 0o644
    first = of(path, command="pull", name="nightly")
    assert before - 1 <= first["archiver_last_success_timestamp_seconds"] <= time.time()
    assert first["archiver_last_exit_code"] == 0
    assert first["archiver_last_archived"] == 1
    assert first["archiver_last_failed"] == 0
    assert first["archiver_last_bytes/intranet"] == first["archiver_last_archived_bytes"]
    nowhere = {"ARCHIVER_PULL_ENDPOINT": "http://127.0.0.1:9", "ARCHIVER_PULL_RETRY_FOR": "1s"}
    failed = await run(*pull, **nowhere)
    assert failed.code == 5
    second = of(path, command="pull", name="nightly")
    success = "archiver_last_success_timestamp_seconds"
    assert second[success] == first[success]
    assert second["archiver_last_attempt_timestamp_seconds"] > first[success]
    assert second["archiver_last_exit_code"] == 5
    assert second["archiver_last_failures/SourceUnreachable"] == 1
    assert not [one for one in tmp_path.iterdir() if one.name.startswith(".nightly")]


async def test_files_of_two_jobs_have_no_series_in_common(run: Run, tmp_path: Path) -> None:
    for name in ("one", "two"):
        await run("pull", "--instance", INSTANCE, "--to", name, "--metrics-file", f"{name}.prom")
    texts = [(tmp_path / f"{name}.prom").read_text() for name in ("one", "two")]
    assert not samples(texts[0]).keys() & samples(texts[1]).keys()


async def test_of_a_verify_and_a_drill(run: Run, tmp_path: Path) -> None:
    await run("pull", "--instance", INSTANCE, "--to", "archive")
    await run("verify", "archive", "--metrics-file", "verify.prom")
    assert of(tmp_path / "verify.prom", command="verify")["archiver_last_read_files/verify"] == 1
    await run("drill", "archive", "--metrics-file", "drill.prom", "--json")
    assert of(tmp_path / "drill.prom", command="drill")["archiver_last_drill_passed/drill"] == 1


async def test_of_the_status_of_instances(run: Run, tmp_path: Path) -> None:
    await run("pull", "--instance", INSTANCE, "--to", "archive")
    shown = await run("status", "archive", "--metrics-file", "status.prom")
    own = {"archive": str(tmp_path / "archive"), "instance": INSTANCE}
    found = of(tmp_path / "status.prom", **own)
    assert found["archiver_instance_sets/cn-hangzhou/complete"] == 1
    assert found["archiver_instance_expected_interval_seconds/cn-hangzhou"] == 86400
    # What never was has no series.
    assert not [name for name in found if "drill" in name or "verified" in name]
    printed = await run("status", "archive", "--format", "prometheus")
    assert printed.code == shown.code
    assert samples(printed.out).keys() <= samples((tmp_path / "status.prom").read_text()).keys()


@pytest.mark.parametrize("path", ["nowhere/x.prom", "archive/x.prom", "archive"])
async def test_a_file_that_cannot_be_written(run: Run, tmp_path: Path, path: str) -> None:
    await run("pull", "--instance", INSTANCE, "--to", "archive")
    refused = await run("ls", "archive", "--metrics-file", path)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith(f"archiver: --metrics-file {path}: ")


def test_an_old_file_that_is_damaged_says_nothing(tmp_path: Path) -> None:
    path, labels = tmp_path / "x.prom", {"command": "pull", "name": "x"}
    nan = b'archiver_last_success_timestamp_seconds{command="pull",name="x"} NaN\n'
    for data in (nan, b"", b"\xff\xfe", b"archiver_last_success_timestamp_seconds{", b"x 1\n" * 10):
        path.write_bytes(data)
        assert last_success(path, labels) is None


def exposed() -> set[str]:
    """The names of all metrics, by the code."""
    source = Path("archiver/cli/metrics.py").read_text()
    names = set(re.findall(r'"(archiver_[a-z_]+)"', source))
    names |= {
        f"archiver_last_{name}"
        for name in re.findall(r'^    \("\w+", "(\w+)", "', source, re.MULTILINE)
    }
    names |= {f"archiver_instance_{name}" for name, _, _ in _GAUGES}
    return names | {"archiver_instance_sets"}


@pytest.mark.parametrize("path", [RULES, DASHBOARD])
def test_the_examples_ask_for_metrics_that_exist(path: Path) -> None:
    asked = set(re.findall(r"archiver_[a-z]+_[a-z_]+", path.read_text()))
    assert asked
    assert asked <= exposed()


def test_the_rules_are_rules() -> None:
    [document] = manifests.read(RULES)
    [group] = document["groups"]
    assert {rule["labels"]["severity"] for rule in group["rules"]} == {"warning", "critical"}
    assert all(rule["annotations"]["summary"] for rule in group["rules"])
    if (promtool := shutil.which("promtool")) is not None:
        subprocess.run([promtool, "check", "rules", RULES], check=True)
