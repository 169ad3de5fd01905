"""Only a vendor's own package knows its fields, and all processes check what it sent alike."""

import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

import archiver

ROOT = Path(archiver.__file__).parent
# The emulator plays the vendor.
OWN = ("sources/alibaba", "emulator")
FIELDS = {
    "BackupDBNames", "BackupDownloadURL", "BackupEndTime", "BackupId", "BackupIntranetDownloadURL",
    "BackupJobID", "BackupJobId", "BackupMethod", "BackupMode", "BackupSize", "BackupStartTime",
    "BackupStatus", "BackupType", "ClusterBackupId", "EngineVersion", "ExpectExpireTime",
    "FullBackup", "IncrementalBackup", "NodeInstanceId", "PageNumber", "RecoverConfigMode",
    "ShardCount", "TotalCount",
}  # fmt: skip
# Names of our own, which the vendor's words happen to be.
OURS = {"BackupMode", "BackupType"}


def words(path: Path) -> set[str]:
    """The vendor's words in a module: in its strings and comments, and as names."""
    found = set[str]()
    with tokenize.open(path) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type in (tokenize.STRING, tokenize.COMMENT):
                found |= FIELDS & set(re.findall(r"\w+", token.string))
            elif token.type == tokenize.NAME:
                found |= (FIELDS - OURS) & {token.string}
    return found


def test_nobody_else_knows_its_fields() -> None:
    modules = {path.relative_to(ROOT).as_posix(): path for path in ROOT.rglob("*.py")}
    assert words(modules["sources/alibaba/fields.py"]) >= {"BackupType", "NodeInstanceId"}
    others = {name: path for name, path in modules.items() if not name.startswith(OWN)}
    assert {name: found for name, path in others.items() if (found := words(path))} == {}


@pytest.mark.parametrize("name", ["commands.drill", "commands.verify.run", "archive.inventory"])
def test_what_was_received_is_read_again_without_a_network(name: str) -> None:
    """Whatever a process imports, its records are checked, and no HTTP client comes with it."""
    code = f"""
import sys
import archiver.{name}
from archiver import received
from archiver.model import SourceName
read = received.reader(SourceName("alibaba", "DescribeBackups 2015-01-01"))
item = {{"BackupId": 7, "BackupStartTime": "2026-11-24T02:15:00Z"}}
print(read("r-bp1", item).backup_id, "archiver.sources.alibaba.rpc" in sys.modules)
print(sorted(one for one in sys.modules if one in ("aiohttp", "archiver.sources.session")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "7 False\n[]\n"
