"""The CronJobs have the shape that Kubernetes wants, and their containers do what they say."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from archiver.errors import (
    EXIT_INTERRUPTED,
    AccessError,
    ArchiveBusy,
    SourceUnavailable,
    UsageError,
)
from archiver.shards import Shard
from tests.docs.pages import DOCS, rows
from tests.examples import container, crontab, envfile, manifests
from tests.examples.commands import parsed
from tests.examples.conftest import EXAMPLES, VENDOR_KEY, Offsite, Stage

FOLDER = EXAMPLES / "kubernetes"
FILES = sorted(FOLDER.iterdir())
JOBS = {job["metadata"]["name"]: job for path in FILES for job in manifests.read(path)}
# Where the secrets come from, and the claims.
SECRETS = {"vendor-key": "vendor.env", "offsite-key": "offsite.env"}
CLAIMS = {"redis-backups": "/srv/redis-backups", "drill-evidence": "/srv/drill-evidence"}


def job_of(job: Any) -> Any:
    return job["spec"]["jobTemplate"]["spec"]


def pod_of(job: Any) -> Any:
    return job_of(job)["template"]["spec"]


def args_of(job: Any, index: int = 0) -> list[str]:
    """The words of the command; in an Indexed Job, those of the pod with this index."""
    words: list[str] = pod_of(job)["containers"][0]["args"]
    if "completionMode" in job_of(job):
        words = [word.replace("$(JOB_COMPLETION_INDEX)", str(index)) for word in words]
    return words


def container_of(
    stage: Stage, name: str, *, network: bool = False, vendor: str = "", index: int = 0
) -> Any:
    """What the kubelet would start, with the volumes of these tests."""
    pod = pod_of(JOBS[name])
    [given] = pod["containers"]
    environ = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    for source in given.get("envFrom", []):
        path = stage.path / SECRETS[source["secretRef"]["name"]]
        environ |= envfile.as_docker(path)
    volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
    mounts = []
    for mount in given.get("volumeMounts", []):
        claim = volumes[mount["name"]].get("persistentVolumeClaim")
        source = stage.places[CLAIMS[claim["claimName"]] if claim else "/var/tmp"]
        mounts.append(container.Mount(source, mount["mountPath"], mount.get("readOnly", False)))
    user = pod["securityContext"]
    own(stage, user["runAsUser"], user["fsGroup"])
    return container.Container(
        [*container.ARCHIVER, *(stage.moved(word) for word in args_of(JOBS[name], index))],
        environ, user["runAsUser"], user["runAsGroup"], mounts, network, vendor, VENDOR_KEY,
    )  # fmt: skip


def own(stage: Stage, user: int, group: int) -> None:
    """As an earlier run of the same job left the volumes."""
    for path in (stage.archive, stage.path / "evidence", stage.path / "scratch"):
        for one in (path, *path.rglob("*")):
            os.chown(one, user, group)


@pytest.fixture(autouse=True)
def isolated(request: pytest.FixtureRequest) -> None:
    if "stage" in request.fixturenames and (why := container.why_not()):
        pytest.skip(f"no container can be made here: {why}")


def test_there_is_one_for_every_job() -> None:
    names = [path.stem for path in FILES]
    assert names == ["copy", "drill", "pull-sharded", "pull", "verify"]


@pytest.mark.parametrize("name", JOBS)
def test_shape(name: str) -> None:
    job = JOBS[name]
    manifests.check(job)
    crontab.check_schedule(job["spec"]["schedule"])
    pod = pod_of(job)
    [given] = pod["containers"]
    parsed(args_of(job))
    volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
    mounts = {mount["name"]: mount for mount in given.get("volumeMounts", [])}
    assert volumes.keys() == mounts.keys()
    for key, volume in volumes.items():
        claim = volume.get("persistentVolumeClaim", {})
        assert claim.get("readOnly") == mounts[key].get("readOnly")
    for source in given.get("envFrom", []):
        assert source["secretRef"]["name"] in SECRETS


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_command_for_the_secret_is_in_the_file(path: Path) -> None:
    text = path.read_text()
    made = dict(re.findall(r"create secret generic (\S+) --from-env-file=examples/(\S+)", text))
    wanted = re.findall(r"secretRef: \{name: (\S+)\}", text)
    assert made == {name: SECRETS[name] for name in wanted}


async def test_pull(stage: Stage, vendor: Path, tmp_path: Path) -> None:
    """Nothing but loopback, no HOME, a user whom nobody knows, and a root that is read-only."""
    code, said = await container_of(stage, "archiver-pull", vendor=str(vendor)).run(tmp_path)
    assert code == 0, said
    assert stage.archived() == 2


SHARDED = JOBS["archiver-pull-sharded"]


def test_each_pod_of_an_indexed_job_has_its_shard() -> None:
    count = job_of(SHARDED)["completions"]
    shards = [parsed(args_of(SHARDED, index)).params["shard"] for index in range(count)]
    assert shards == [Shard(index, count) for index in range(count)]


def test_what_becomes_of_a_pod_that_failed() -> None:
    """The first rule is about pods that were stopped from outside, whatever they exit with."""
    first, *rules = job_of(SHARDED)["podFailurePolicy"]["rules"]
    assert first["action"] == "Ignore"
    by_action = {rule["action"]: rule["onExitCodes"] for rule in rules}
    assert {codes["containerName"] for codes in by_action.values()} == {"pull"}
    assert by_action["FailIndex"]["values"] == [UsageError.exit_code, AccessError.exit_code]
    again = [SourceUnavailable.exit_code, ArchiveBusy.exit_code, EXIT_INTERRUPTED]
    assert by_action["Count"]["values"] == again
    documented = {row[0] for row in rows(DOCS["commands"].section("## Exit codes"))}
    assert {str(code) for codes in by_action.values() for code in codes["values"]} <= documented


async def test_pull_sharded(stage: Stage, vendor: Path, offsite: Offsite, tmp_path: Path) -> None:
    """The pods one after the other; tests/cli/test_shards.py runs some at the same time."""
    offsite.begin()
    for index in range(job_of(SHARDED)["completions"]):
        (scratch := tmp_path / f"pod-{index}").mkdir()
        pod = container_of(
            stage, "archiver-pull-sharded", network=True, vendor=str(vendor), index=index
        )
        code, said = await pod.run(scratch)
        assert code == 0, said
    objects = offsite.server.objects(offsite.bucket, "redis/")
    assert len([key for key in objects if key.endswith(".rdb")]) == 2


async def test_copy(stage: Stage, pulled: None, offsite: Offsite, tmp_path: Path) -> None:
    offsite.begin()
    code, said = await container_of(stage, "archiver-copy", network=True).run(tmp_path)
    assert code == 0, said
    await offsite.check_copied(stage.archive)


async def test_verify(stage: Stage, pulled: None, tmp_path: Path) -> None:
    code, said = await container_of(stage, "archiver-verify").run(tmp_path)
    assert code == 0, said
    stage.check_results()


async def test_verify_offsite(stage: Stage, pulled: None, offsite: Offsite, tmp_path: Path) -> None:
    offsite.keep(stage.archive)
    code, said = await container_of(stage, "archiver-verify-offsite", network=True).run(tmp_path)
    assert code == 0, said
    offsite.check_results()


async def test_drill(stage: Stage, pulled: None, tmp_path: Path) -> None:
    """Without a network, and with the archive mounted read-only."""
    code, said = await container_of(stage, "archiver-drill").run(tmp_path)
    assert code == 0, said
    stage.check_evidence("evidence")


def _volume(job: Any) -> Any:
    return pod_of(job)["volumes"][0]


@pytest.mark.parametrize(
    "change",
    [
        lambda job: job["spec"].update(schedules="x"),
        lambda job: job["spec"].pop("schedule"),
        lambda job: job.update(apiVersion="batch/v1beta1"),
        lambda job: pod_of(job).update(restartPolicy="Always"),
        lambda job: pod_of(job)["containers"][0].update(env=[{"name": "A", "value": True}]),
        lambda job: pod_of(job)["containers"][0]["args"].append(5),
        lambda job: pod_of(job)["containers"][0]["volumeMounts"][0].update(readonly=True),
        lambda job: pod_of(job)["containers"][0]["securityContext"].update(privileged=True),
        lambda job: _volume(job).update(emptyDir={}),
    ],
)
def test_another_shape_is_refused(change: Callable[[Any], object]) -> None:
    [job] = manifests.read(FOLDER / "pull.yaml")
    manifests.check(job)
    change(job)
    with pytest.raises(jsonschema.ValidationError):
        manifests.check(job)


@pytest.mark.parametrize(
    "change",
    [
        lambda job: job_of(job).pop("completionMode"),
        lambda job: job_of(job).pop("backoffLimitPerIndex"),
        lambda job: job_of(job).update(completions=0),
        lambda job: pod_of(job).update(restartPolicy="OnFailure"),
        lambda job: job_of(job)["podFailurePolicy"]["rules"][1].update(action="FailShard"),
        lambda job: job_of(job)["podFailurePolicy"]["rules"][1]["onExitCodes"].pop("operator"),
        lambda job: job_of(job)["podFailurePolicy"]["rules"][1]["onExitCodes"].update(values=[0]),
    ],
)
def test_another_shape_of_an_indexed_job_is_refused(change: Callable[[Any], object]) -> None:
    [job] = manifests.read(FOLDER / "pull-sharded.yaml")
    manifests.check(job)
    change(job)
    with pytest.raises(jsonschema.ValidationError):
        manifests.check(job)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: yes", {"a": True}), ('a: "yes"', {"a": "yes"}), ("a: 30m", {"a": "30m"}),
        ("a: 1 # b", {"a": 1}), ("a: b#c", {"a": "b#c"}),
        ("a: [b, {c: d}]", {"a": ["b", {"c": "d"}]}),
        ("a:\n  - b: 1\n    c: 2\n  - d", {"a": [{"b": 1, "c": 2}, "d"]}),
        ("a: {b: [C], d: \"e, f\"}", None), ("a: %b", None), ("a:\n - b\n  - c", None),
        ("a: 1\na: 2", None), ("a:\tb", None), ("a: [b", None), ("a: b: c", None),
    ],
)  # fmt: skip
def test_yaml(tmp_path: Path, text: str, value: Any) -> None:
    (tmp_path / "a.yaml").write_text(text)
    if value is not None:
        assert manifests.read(tmp_path / "a.yaml") == [value]
        return
    with pytest.raises((manifests.BadManifest, IndexError)):
        manifests.read(tmp_path / "a.yaml")
