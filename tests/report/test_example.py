"""The evidence kept under examples/ is what the example writes, and a chain."""

from pathlib import Path

from archiver.report.chain import check_chain, is_evidence_key
from examples import drill_evidence

KEPT = Path(drill_evidence.__file__).parent / "evidence"


def test_the_kept_files_are_those_that_are_made() -> None:
    made = drill_evidence.files()
    kept = {str(path.relative_to(KEPT)): path for path in KEPT.rglob("*") if path.is_file()}
    assert made.keys() == kept.keys()
    for key, data in made.items():
        assert kept[key].read_bytes() == data, f"{key}: run python -m examples.drill_evidence"


def test_they_are_a_chain() -> None:
    documents = [
        (key, data) for key, data in drill_evidence.files().items() if is_evidence_key(key)
    ]
    assert len(documents) == 2
    assert check_chain(documents) == []
