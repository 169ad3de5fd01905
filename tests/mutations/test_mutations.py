"""Each mutation has its place in the sources and tests that exist, wherever both have moved to."""

import ast
from pathlib import Path

import pytest

from tests.mutations.mutation import Mutation, parse, read_all
from tests.mutations.places import NoSuchPlace, Sources, squeezed
from tests.mutations.selection import NoSuchTest, Suite

ROOT = Path(__file__).parents[2]

MODULE = """\
class Staging:
    def commit(self, final: str) -> None:
        if self.size:  # an empty file has no journal
            self.journal.close(
                final,
                sync=True,
            )
        elif size_of(final):
            self.close()

    def close(self) -> None:
        self.journal.close(final, sync=True)
"""
AS_IT_WAS = Mutation(
    "the journal stays open",
    "Staging.commit",
    "if self.size:\n    self.journal.close(final, sync=True)",
    "if self.size:\n    pass",
    ("test_staging",),
)


def checkout(folder: Path, **modules: str) -> Sources:
    for name, text in modules.items():
        path = folder / "archiver" / Path(*name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Sources(folder)


def mutated(sources: Sources, place: str, old: str, new: str) -> str:
    return sources.mutated(Mutation("", place, old, new, ()))[1]


def differs(path: Path, text: str) -> bool:
    """In more than white space, unless that makes the difference."""
    before = path.read_text()
    return squeezed(text) != squeezed(before) or (
        path.suffix == ".py" and ast.dump(ast.parse(text)) != ast.dump(ast.parse(before))
    )


def test_each_has_its_place_and_breaks_it() -> None:
    sources, tests, wrong = Sources(ROOT), Suite(ROOT), list[str]()
    mutations = read_all()
    for mutation in mutations:
        try:
            path, text = sources.mutated(mutation)
            if path.suffix == ".py":
                compile(text, path, "exec", dont_inherit=True)
            if not differs(path, text):
                wrong.append(f"{mutation.name}: changes nothing")
            for run in mutation.runs:
                tests.arguments(run)
        except (NoSuchPlace, NoSuchTest, SyntaxError) as error:
            wrong.append(f"{mutation.name}: {error}")
    assert not wrong, "\n".join(wrong)
    assert len(mutations) > 600


def test_a_place_is_found_wherever_its_module_is_and_however_it_is_formatted(
    tmp_path: Path,
) -> None:
    formatted = MODULE.replace(
        "(\n                final,\n                sync=True,\n            )", "(final, sync=True)"
    )
    assert formatted != MODULE
    for name, text in (("stores__staging", MODULE), ("other__name", formatted)):
        path, changed = checkout(tmp_path / name, **{name: text}).mutated(AS_IT_WAS)
        assert path == tmp_path / name / "archiver" / f"{name.replace('__', '/')}.py"
        assert changed.splitlines()[2:5] == [
            "        if self.size:",
            "            pass",
            "        elif size_of(final):",
        ]


def test_a_text_counts_in_its_definition_alone_and_as_whole_words(tmp_path: Path) -> None:
    sources = checkout(tmp_path, staging=MODULE)
    assert "close(final, sync=False)" in mutated(
        sources, "Staging.close", "sync=True", "sync=False"
    )
    assert "elif True:" in mutated(sources, "Staging.commit", "size_of(final)", "True")
    with pytest.raises(NoSuchPlace, match="0 places"):
        mutated(sources, "Staging.commit", "size_of(fin", "True or (fin")
    with pytest.raises(NoSuchPlace, match="0 places"):
        mutated(sources, "Staging.close", "if self.size:", "if True:")
    with pytest.raises(NoSuchPlace, match="2 places"):
        mutated(sources, "Staging", "sync=True", "sync=False")


def test_a_module_tells_two_definitions_apart(tmp_path: Path) -> None:
    sources = checkout(tmp_path, local__staging=MODULE, bucket__staging=MODULE)
    with pytest.raises(NoSuchPlace, match="2 places"):
        sources.mutated(AS_IT_WAS)
    of_bucket = Mutation("", "bucket.staging:Staging.commit", AS_IT_WAS.old, AS_IT_WAS.new, ())
    assert sources.mutated(of_bucket)[0] == tmp_path / "archiver" / "bucket" / "staging.py"


def test_names_that_are_assigned_to_are_definitions(tmp_path: Path) -> None:
    text = "MOST = 5\nclass Error:\n    ends_run: bool = False\ndef run():\n    most = 5\n"
    sources = checkout(tmp_path, errors=text)
    assert mutated(sources, "MOST", "5", "6") == text.replace("MOST = 5", "MOST = 6")
    assert "ends_run: bool = True" in mutated(sources, "Error.ends_run", "False", "True")
    with pytest.raises(NoSuchPlace):
        mutated(sources, "run.most", "5", "6")


def test_what_is_not_python_is_found_by_the_end_of_its_path(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "commands.md").write_text("run `archiver ls` daily")
    (tmp_path / "README.md").write_text("# archiver")
    path, text = Sources(tmp_path).mutated(Mutation("", "*.md", "archiver ls", "archiver sl", ()))
    assert (path.name, text) == ("commands.md", "run `archiver sl` daily")


def test_tests_are_found_by_lasting_names(tmp_path: Path) -> None:
    for name in ("stores/test_local.py", "rdb/test_files.py", "restore/test_files.py"):
        path = tmp_path / "tests" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"async def test_{path.parent.name}(): ...\n")
    tests = Suite(tmp_path)
    assert tests.arguments("test_local restore/test_files rdb/ -k test_files") == [
        "tests/stores/test_local.py", "tests/restore/test_files.py", "tests/rdb",
        "-k", "test_files",
    ]  # fmt: skip
    assert tests.arguments("::test_rdb[3]") == ["tests/rdb/test_files.py::test_rdb[3]"]
    for word in ("test_files", "test_remote", "test_local::test_rdb", "::test_remote"):
        with pytest.raises(NoSuchTest):
            tests.arguments(word)


def test_a_list_is_read_as_it_is_written() -> None:
    text = (
        "the journal stays open\nat Staging.commit\n if self.size:\n"
        "-    self.journal.close(final, sync=True)\n+    pass\nby test_staging\n"
    )
    assert list(parse(text)) == [AS_IT_WAS]
    assert len(list(parse(f"{text}\n{text}by test_power::test_cut[pulled]\n"))) == 2
    for part in ("at Staging.commit\n", "by test_staging\n", "-    self", "+    pass\nby"):
        with pytest.raises(ValueError, match="no mutation"):
            list(parse(text.replace(part, "x")))
