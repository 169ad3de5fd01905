"""Files of environment variables, as those read them who may be given one."""

import re
import subprocess
from pathlib import Path

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"


def as_docker(path: Path) -> dict[str, str]:
    """``docker --env-file`` and ``kubectl --from-env-file``: to the end of the line, as it is."""
    found = {}
    for line in path.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            name, equals, value = line.partition("=")
            if not (equals and re.fullmatch(_NAME, name)):
                raise ValueError(f"{path.name}: {line!r} sets nothing")
            found[name] = value
    return found


def as_systemd(path: Path) -> dict[str, str]:
    """``EnvironmentFile=``: quotes are removed, a backslash at the end goes on, no variables."""
    found = {}
    for line in re.sub(r"\\\n", "", path.read_text()).splitlines():
        if line.strip() and line.lstrip()[0] not in "#;":
            name, _, value = (part.strip() for part in line.partition("="))
            is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
            found[name] = value[1:-1] if is_quoted else re.sub(r"\\(.)", r"\1", value)
    return found


def as_sh(path: Path) -> dict[str, str]:
    """``set -a; . FILE``."""
    told = subprocess.run(
        ["/bin/sh", "-c", 'set -a; . "$0" && exec env -0', str(path)],
        check=True, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"},
    ).stdout  # fmt: skip
    variables = dict(one.split("=", 1) for one in told.split("\0") if one)
    return {name: value for name, value in variables.items() if name not in {"PATH", "PWD"}}
