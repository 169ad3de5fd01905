"""The journal, torn at every byte."""

from hypothesis import given
from hypothesis import strategies as st

from archiver.model import Network, Pin, Provenance
from archiver.stores.local import journal

PIN = Pin(1_000_000, '"E"', 2**64 - 1)
FROM = Provenance("http://h/k", Network.INTRANET)
entries = st.lists(st.tuples(st.integers(0, 9_999), st.integers(0, 2**64 - 1)), max_size=12)


def written(parts: list[tuple[int, int]]) -> bytes:
    return journal.head(PIN, FROM, 100) + b"".join(journal.entry(i, crc) for i, crc in parts)


@given(entries)
def test_what_was_written_is_read(parts: list[tuple[int, int]]) -> None:
    data = written(parts)
    read = journal.parse(data)
    assert read is not None
    assert (read.pin, read.provenance, read.part_size) == (PIN, FROM, 100)
    assert read.length == len(data)
    assert read.crcs == dict(parts)
    assert read.partial == {}


@given(entries, entries)
def test_a_part_begun_is_not_whole(
    parts: list[tuple[int, int]], begun: list[tuple[int, int]]
) -> None:
    """A complete part never becomes partial, in whatever order the lines come."""
    lines = [journal.entry(i, crc) for i, crc in parts]
    lines += [journal.entry(i, crc, size=i % 100 + 1) for i, crc in begun]
    for data in (lines, lines[::-1]):
        read = journal.parse(journal.head(PIN, FROM, 100) + b"".join(data))
        assert read is not None
        assert read.crcs.keys() == {i for i, _ in parts}
        assert read.partial.keys() == {i for i, _ in begun} - read.crcs.keys()
        assert all(size == i % 100 + 1 for i, (size, _) in read.partial.items())


@given(entries, st.data())
def test_any_prefix_holds_what_was_whole(parts: list[tuple[int, int]], draw: st.DataObject) -> None:
    data = written(parts)
    cut = draw.draw(st.integers(0, len(data)))
    read = journal.parse(data[:cut])
    if cut < len(journal.head(PIN, FROM, 100)):
        assert read is None
        return
    assert read is not None
    assert read.length <= cut
    # Appending after the whole lines gives a whole journal again.
    again = journal.parse(data[: read.length] + journal.entry(77, 7))
    assert again is not None
    assert again.crcs == {**read.crcs, 77: 7}


@given(entries.filter(bool), st.data())
def test_a_flipped_byte_ends_it(parts: list[tuple[int, int]], draw: st.DataObject) -> None:
    data = bytearray(written(parts))
    at = draw.draw(st.integers(len(journal.head(PIN, FROM, 100)), len(data) - 1))
    data[at] ^= draw.draw(st.integers(1, 255))
    read = journal.parse(bytes(data))
    assert read is not None
    assert read.length <= at
    whole = dict(parts)
    assert all(whole.get(index) is not None for index in read.crcs)


@given(st.binary(max_size=200))
def test_rubbish_is_not_a_journal(data: bytes) -> None:
    assert journal.parse(data) is None


@given(st.integers(0, 2**40), st.integers(0, 2**40))
def test_a_part_out_of_bounds_ends_it(part: int, size: int) -> None:
    data = journal.head(PIN, FROM, 100) + journal.entry(part, 1, size=size)
    read = journal.parse(data)
    assert read is not None
    assert bool(read.partial) is (part < 10_000 and size <= 100)


def test_more_parts_than_a_file_has() -> None:
    assert journal.parse(journal.head(PIN, FROM, 99)) is None
