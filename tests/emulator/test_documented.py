"""The JSON in the documentation, given to the emulator."""

import json
import re
from pathlib import Path
from typing import Any

from tests.conftest import EmulatorMaker
from tests.emulator.sdk import SDK_WARNINGS, Ask

pytestmark = SDK_WARNINGS

DOCS = Path(__file__).parents[2] / "docs"
SPAN = {"start_time": "2000-01-01T00:00Z", "end_time": "2100-01-01T00:00Z"}


def documents(page: str, word: str) -> list[dict[str, Any]]:
    """The JSON blocks of a page that have a key."""
    blocks = re.findall(r"```json\n(.*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL)
    return [document for block in blocks if word in (document := json.loads(block))]


async def test_the_instances(files: Path, emulator_of: EmulatorMaker, ask: Ask) -> None:
    [document] = documents("commands.md", "instances")
    (files / "instances.json").write_text(json.dumps(document))
    emulator = await emulator_of(files)
    body = await ask(emulator, "DescribeInstances", region_id="cn-beijing")
    [sessions] = body.instances.kvstore_instance
    assert (sessions.instance_id, sessions.shard_count) == ("r-sessions", 8)
    body = await ask(emulator, "DescribeRegions")
    assert {r.region_id: r.region_endpoint for r in body.region_ids.kvstore_region} == {
        "cn-hangzhou": f"127.0.0.1:{emulator.port}",
        "cn-beijing": "127.0.0.1:8081",
    }
