"""Works on copies, as many at a time as there are processors. Prints a Markdown table; exit code 1
when a mutation survives."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.mutations.mutation import read_all
from tests.mutations.places import Sources
from tests.mutations.selection import Suite

HERE = Path(__file__).parents[2]
# The slowest take a minute; what hangs is found as well.
MOST_SECONDS = 900
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
_LEFT_OUT = shutil.ignore_patterns(".*", "*.egg-info", "dist")


@dataclass(frozen=True)
class Run:
    """A broken file, and the tests that should find it."""

    name: str
    path: Path
    text: str
    tests: list[str]


def chosen(word: str) -> list[Run]:
    """The runs of the mutations whose name has the word."""
    sources, tests = Sources(HERE), Suite(HERE)
    return [
        Run(one.name, *sources.mutated(one), tests.arguments(words))
        for one in read_all()
        if word in one.name
        for words in one.runs
    ]


def failure(run: Run) -> str | None:
    """The first failing test, or None when none failed."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(HERE, copy, ignore=_LEFT_OUT)
        (copy / run.path.relative_to(HERE)).write_text(run.text)
        try:
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-q", "-x", *run.tests],
                cwd=copy, env={**os.environ, "PYTHONPATH": str(copy)}, capture_output=True,
                text=True, check=False, timeout=MOST_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"hangs: {' '.join(run.tests)}"
        failed = _FAILED.findall(done.stdout)
        if done.returncode and not failed:
            print(f"{run.name}: no test ran: {done.stdout[-2000:]}{done.stderr}", file=sys.stderr)
        return failed[0] if failed else None


def main() -> None:
    runs = chosen(sys.argv[1] if len(sys.argv) > 1 else "")
    survived = 0
    print("| what was broken | what found it |\n|---|---|")
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for run, found in zip(runs, threads.map(failure, runs), strict=True):
            survived += found is None
            print(f"| {run.name} | {f'`{found}`' if found else '**nothing**'} |", flush=True)
    sys.exit(1 if survived else 0)


if __name__ == "__main__":
    main()
