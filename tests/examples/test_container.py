"""The image, and the command that runs it."""

import os
import re
import tomllib
from pathlib import Path

import pytest

from tests.examples import container, envfile
from tests.examples.conftest import EXAMPLES, VENDOR_KEY, Stage, run

FOLDER = EXAMPLES / "container"
CHECKOUT = EXAMPLES.parent
USER = "10001:10001"


async def test_the_line_that_runs_it(stage: Stage, vendor: Path, tmp_path: Path) -> None:
    """With a docker that says what it was told, and a container made by hand from that."""
    if why := container.why_not():
        pytest.skip(f"no container can be made here: {why}")
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    docker.chmod(0o755)
    code, told = await run(
        [str(FOLDER / "pull.sh"), "--network=public"],
        {"PATH": f"{docker.parent}:/usr/bin:/bin"},
    )
    assert code == 0
    assert told.startswith("run\n")
    made = from_docker(stage, told.splitlines()[1:], str(vendor))
    assert f"{made.user}:{made.group}" == USER
    os.chown(stage.archive, made.user, made.group)
    os.chown(stage.archive / "archive.json", made.user, made.group)
    code, said = await made.run(tmp_path)
    assert code == 0, said
    assert stage.archived() == 2


def from_docker(stage: Stage, words: list[str], vendor: str) -> container.Container:
    """The options of ``docker run`` that the example has, and no others."""
    given = iter(words)
    environ, mounts, user, is_read_only = dict[str, str](), [], "0:0", False
    for word in given:
        match word:
            case "--read-only":
                is_read_only = True
            case "--user":
                user = next(given)
            case "--env-file":
                environ |= envfile.as_docker(Path(stage.moved(next(given))))
            case "--volume":
                source, _, at = next(given).partition(":")
                mounts.append(container.Mount(stage.places[source], at))
            case "--cap-drop" | "--security-opt":
                assert next(given) in {"ALL", "no-new-privileges"}
            case "--rm":
                pass
            case image:
                assert re.fullmatch(r"registry\.example\.com/archiver:[\d.]+", image)
                break
    assert is_read_only
    number, group = map(int, user.split(":"))
    return container.Container(
        [*container.ARCHIVER, *given], environ, number, group, mounts, False, vendor, VENDOR_KEY
    )


def test_the_image_has_what_the_package_is_built_from() -> None:
    text = re.sub(r"\\\n", "", (FOLDER / "Dockerfile").read_text())
    steps = [line.split(None, 1) for line in text.splitlines() if line and line[0] != "#"]
    assert [step for step, _ in steps] == ["FROM", "COPY", "COPY", "RUN", "USER", "ENTRYPOINT"]
    copied = {word for step, rest in steps if step == "COPY" for word in rest.split()[:-1]}
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    built_from = {
        "pyproject.toml",
        project["project"]["readme"],
        *project["project"]["license-files"],
        *project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"],
    }
    assert copied == built_from
    assert all((CHECKOUT / name).exists() for name in copied)
    assert "drill" in project["project"]["optional-dependencies"]
    assert dict(steps)["USER"] == USER
    assert dict(steps)["ENTRYPOINT"] == f'["{next(iter(project["project"]["scripts"]))}"]'
