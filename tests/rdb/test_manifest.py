"""The manifest of a multi-part log."""

import pytest

from archiver.errors import CorruptFile
from archiver.rdb import LogFile, Role, read_manifest

WHOLE = """\
# written by a server
file appendonly.aof.2.base.rdb seq 2 type b
file appendonly.aof.1.incr.aof seq 1 type h
file appendonly.aof.3.incr.aof seq 3 type i
file "with blank.4.incr.aof" seq 4 type i later yes
"""


def test_files_in_the_order_of_loading() -> None:
    manifest = read_manifest(WHOLE)
    assert [file.name for file in manifest.files] == [
        "appendonly.aof.2.base.rdb",
        "appendonly.aof.3.incr.aof",
        "with blank.4.incr.aof",
    ]
    assert manifest.history == (LogFile("appendonly.aof.1.incr.aof", 1, Role.HISTORY),)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "file a seq 1\n",
        "file a seq 1 type b type\n",
        "file a seq 1 type x\n",
        "file a seq 0 type b\n",
        "file a seq -1 type b\n",
        "file a seq ² type b\n",
        "file a seq 1 type b\n\nfile b seq 1 type i\n",
        "file a seq 1 type b\nfile b seq 2 type b\n",
        "file a seq 1 type b\nfile a seq 1 type i\n",
        "file a seq 2 type i\nfile b seq 1 type i\n",
        'file "a seq 1 type b\n',
        *(f"file {name} seq 1 type b\n" for name in ("../a", "/a", "..", ".", "''", "'a\\\\b'")),
    ],
)
def test_what_a_server_refuses(text: str) -> None:
    with pytest.raises(CorruptFile):
        read_manifest(text)
