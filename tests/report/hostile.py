"""Evidence whose every free text tries to be something else."""

from dataclasses import replace

from archiver.report.evidence import Acknowledged, ArchivePlace, Database, Evidence, Who
from examples import drill_evidence as example

SCRIPT = "<script>alert(1)</script>"
IMAGE = "\"><img src='http://192.0.2.1/x' onerror=alert(1)>"
CELL = "a|b`c`*d*\n| e |\x00\x1b[31m\u202e\ud800 {{ 7*7 }}"
WORDS = SCRIPT + IMAGE + CELL


def evidence() -> Evidence:
    one = example.failing(example.SECOND)
    file = replace(
        one.files[0],
        node_id=WORDS,
        backup_id=WORDS,
        object_key=WORDS,
        reason=WORDS,
        modules_needed=(WORDS,),
        server=replace(example.VALKEY, flavour=WORDS, version=WORDS, executable=WORDS),
        rdb=replace(one.files[0].rdb, magic=WORDS, redis_ver=WORDS),
        parsed=(Database(0, 1, 0, {WORDS: 1}, sampled=False),),
    )
    one = replace(
        one,
        key=WORDS,
        instance_id=WORDS,
        why=WORDS,
        files=(file,),
        nodes=replace(one.nodes, present=(WORDS,), missing=(WORDS,)),
        assertions=(replace(one.assertions[0], text=WORDS, node_id=WORDS, seen=WORDS),),
    )
    found = example.drill(example.SECOND, one)
    return replace(
        found,
        archive=ArchivePlace(WORDS.replace("://", ":"), 1),
        who=Who(WORDS, WORDS),
        acknowledged=(Acknowledged(WORDS, example.FIRST, WORDS, WORDS),),
        tool=replace(found.tool, name=WORDS, version=WORDS, runtime=WORDS),
        selection=replace(found.selection, seed=WORDS, instances=(WORDS,)),
    )
