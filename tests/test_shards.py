"""Which instances are in which shard."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.errors import UsageError
from archiver.shards import UNDIVIDED, Shard

# What sha256sum prints for these IDs.
KNOWN = {
    "r-bp1zxszhcgatnx": "8a9f8947cf119f492a798547c08aaa4406f96266f58124301b3dba54c745d8ee",
    "r-bp1yyyyyyyyyyyyy": "79ab4d78cf116d20fa911565b50e4f821801d5c2b3f60dd8a2df0d92b4b740e8",
}


@pytest.mark.parametrize(("name", "digest"), KNOWN.items())
def test_the_hash_never_changes(name: str, digest: str) -> None:
    """Runs of different versions may share an archive."""
    assert hashlib.sha256(name.encode()).hexdigest() == digest
    for count in (2, 3, 7, 999_999):
        assert Shard(int(digest, 16) % count, count).owns(name)


@given(st.lists(st.text()), st.integers(1, 20))
def test_each_instance_is_in_exactly_one_shard(names: list[str], count: int) -> None:
    shards = [Shard(index, count).own(names) for index in range(count)]
    assert sorted(one for own in shards for one in own) == sorted(set(names))


def test_each_is_named_once_and_in_order() -> None:
    assert UNDIVIDED.own(["r-b", "r-a", "r-b"]) == ("r-b", "r-a")


def test_shards_have_about_the_same_number() -> None:
    names = [f"r-bp1{number:010}" for number in range(3000)]
    for index in range(3):
        assert 900 < len(Shard(index, 3).own(names)) < 1100


def test_a_folder_whose_name_is_not_unicode_is_in_one() -> None:
    name = b"r-\xff".decode(errors="surrogateescape")
    assert [Shard(index, 2).owns(name) for index in range(2)].count(True) == 1


@pytest.mark.parametrize("text", ["0/1", "2/3", "07/12"])
def test_it_is_read(text: str) -> None:
    index, count = map(int, text.split("/"))
    assert Shard.parse(text) == Shard(index, count)
    assert str(Shard.parse(text)) == f"{index}/{count}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("3/3", "there is no shard 3/3: the last of 3 is 2/3"),
        ("0/0", r"there is no shard 0/0 \(use"),
        *(
            (text, "invalid shard")
            for text in ("", "1", "-1/3", "1/3/5", " 1/3", "a/b", "\u0661/3")
        ),
    ],
)
def test_what_is_no_shard(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Shard.parse(text)
