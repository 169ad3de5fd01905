"""Kubernetes manifests: a small part of YAML, read strictly, and the shape of a CronJob."""

import re
from pathlib import Path
from typing import Any

import jsonschema

_NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
_KEY = re.compile(r"([A-Za-z][\w.-]*):(?:\s+(.*))?")
_PLAIN = re.compile(r"[^\s%@`&*!|>'\"{}\[\],#?:].*")
_FLOW = re.compile(r"""\s*("(?:[^"\\]|\\.)*"|'[^']*'|[{}\[\],]|[^\s{}\[\],'"][^{}\[\],]*)\s*""")


class BadManifest(ValueError):
    """No YAML, or not the part of it that is read here."""


def read(path: Path) -> list[Any]:
    """Each document of a file."""
    documents = re.split(r"^---$", path.read_text(), flags=re.MULTILINE)
    return [_Block(_lines(text)).whole() for text in documents]


def check(job: Any) -> None:
    """Raises jsonschema.ValidationError for what is no CronJob, or has a field that none has."""
    jsonschema.Draft202012Validator(CRON_JOB).validate(job)


def _lines(text: str) -> list[tuple[int, str]]:
    lines = []
    for line in text.splitlines():
        if "\t" in line:
            raise BadManifest(f"a tab: {line!r}")
        bare = re.sub(r"""^((?:"[^"]*"|'[^']*'|[^"'#]|(?<=\S)#)*)(?<!\S)#.*$""", r"\1", line)
        if bare.strip():
            lines.append((len(bare) - len(bare.lstrip()), bare.strip()))
    return lines


class _Block:
    """Mappings and lists that are told by how far they are indented."""

    def __init__(self, lines: list[tuple[int, str]]) -> None:
        self._lines = lines

    def whole(self) -> Any:
        value = self._value(0)
        if self._lines:
            raise BadManifest(f"indented by {self._lines[0][0]}: {self._lines[0][1]!r}")
        return value

    def _value(self, indent: int) -> Any:
        is_list = bool(self._lines) and self._lines[0][1].startswith("- ")
        return self._list(indent) if is_list else self._mapping(indent)

    def _list(self, indent: int) -> list[Any]:
        items = []
        while self._lines and self._lines[0][0] == indent and self._lines[0][1].startswith("- "):
            text = self._lines.pop(0)[1][2:].strip()
            if _KEY.fullmatch(text) is not None:
                self._lines.insert(0, (indent + 2, text))
                items.append(self._mapping(indent + 2))
            else:
                items.append(_scalar(text))
        return items

    def _mapping(self, indent: int) -> dict[str, Any]:
        found = dict[str, Any]()
        while self._lines and self._lines[0][0] == indent and self._lines[0][1][:2] != "- ":
            text = self._lines.pop(0)[1]
            match = _KEY.fullmatch(text)
            if match is None or match[1] in found:
                raise BadManifest(f"no key, or one that was there before: {text!r}")
            found[match[1]] = _scalar(match[2]) if match[2] else self._below(indent)
        return found

    def _below(self, indent: int) -> Any:
        if not self._lines or self._lines[0][0] <= indent:
            return None
        return self._value(self._lines[0][0])


def _scalar(text: str) -> Any:
    """What stands on one line: a flow of braces or brackets, or a single value."""
    if text[0] not in "{[":
        return _single(text)
    words = _pieces(text)
    value = _flow(words)
    if words:
        raise BadManifest(f"more behind its end: {text!r}")
    return value


def _pieces(text: str) -> list[str]:
    pieces, at = list[str](), 0
    while at < len(text):
        match = _FLOW.match(text, at)
        if match is None:
            raise BadManifest(f"not read here: {text[at:]!r}")
        pieces.append(match[1])
        at = match.end()
    return pieces


def _flow(words: list[str]) -> Any:
    first = words.pop(0)
    if first not in {"{", "["}:
        return _single(first.strip())
    items, pairs, close = list[Any](), dict[str, Any](), "}" if first == "{" else "]"
    while words[0] != close:
        if first == "[":
            items.append(_flow(words))
        else:
            match = _KEY.fullmatch(words.pop(0).strip())
            if match is None or match[1] in pairs:
                raise BadManifest("no key, or one that was there before")
            pairs[match[1]] = _single(match[2].strip()) if match[2] else _flow(words)
        if words[0] == ",":
            words.pop(0)
    words.pop(0)
    return pairs if first == "{" else items


def _single(text: str) -> Any:
    if text[0] in "\"'":
        if text[-1] != text[0] or "\\" in text:
            raise BadManifest(f"not read here: {text}")
        return text[1:-1]
    if not _PLAIN.fullmatch(text) or ": " in text or " #" in text:
        raise BadManifest(f"a value that needs quotes: {text}")
    words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    if text.lower() in words:
        return words[text.lower()]
    if text in {"null", "~"}:
        return None
    if re.fullmatch(r"[-+]?\d+", text):
        return int(text)
    return float(text) if re.fullmatch(r"[-+]?\d*\.\d+(e[-+]?\d+)?", text) else text


def _object(required: str, **properties: Any) -> dict[str, Any]:
    """An object that has what is required, and nothing that is not named."""
    return {
        "type": "object", "properties": properties, "required": required.split(),
        "additionalProperties": False,
    }  # fmt: skip


def _list(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


_TEXT, _TRUTH, _WHOLE = {"type": "string"}, {"type": "boolean"}, {"type": "integer", "minimum": 0}
_NAMED = {"type": "string", "pattern": _NAME, "maxLength": 63}
_ROOTED = {"type": "string", "pattern": "^/"}
_CONTAINER = _object(
    "name image args securityContext",
    name=_NAMED,
    image=_TEXT,
    command=_list(_TEXT),
    args=_list(_TEXT),
    env=_list(_object("name value", name=_TEXT, value=_TEXT)),
    envFrom=_list(_object("secretRef", secretRef=_object("name", name=_NAMED))),
    securityContext=_object(
        "allowPrivilegeEscalation readOnlyRootFilesystem capabilities",
        allowPrivilegeEscalation={"const": False},
        readOnlyRootFilesystem={"const": True},
        capabilities=_object("drop", drop={"const": ["ALL"]}),
    ),
    volumeMounts=_list(_object("name mountPath", name=_NAMED, mountPath=_ROOTED, readOnly=_TRUTH)),
)
_VOLUME = {
    "oneOf": [
        _object(
            "name persistentVolumeClaim",
            name=_NAMED,
            persistentVolumeClaim=_object("claimName", claimName=_NAMED, readOnly=_TRUTH),
        ),
        _object(
            "name emptyDir",
            name=_NAMED,
            emptyDir=_object("", sizeLimit={"type": "string", "pattern": r"^\d+(Mi|Gi|Ti)$"}),
        ),
    ]
}
_POD = _object(
    "restartPolicy securityContext containers",
    restartPolicy={"enum": ["Never", "OnFailure"]},
    automountServiceAccountToken=_TRUTH,
    securityContext=_object(
        "runAsNonRoot runAsUser",
        runAsNonRoot={"const": True},
        runAsUser={"type": "integer", "minimum": 1},
        runAsGroup={"type": "integer", "minimum": 1},
        fsGroup={"type": "integer", "minimum": 1},
    ),
    containers=_list(_CONTAINER),
    volumes=_list(_VOLUME),
)
# https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-failure-policy
_RULE = {
    "oneOf": [
        _object(
            "action onPodConditions",
            action={"const": "Ignore"},
            onPodConditions=_list(
                _object("type status", type={"const": "DisruptionTarget"}, status={"const": "True"})
            ),
        ),
        _object(
            "action onExitCodes",
            action={"enum": ["FailIndex", "Count"]},
            onExitCodes=_object(
                "containerName operator values",
                containerName=_NAMED,
                operator={"const": "In"},
                values={**_list({"type": "integer", "minimum": 1}), "uniqueItems": True},
            ),
        ),
    ]
}
_COUNT = {"type": "integer", "minimum": 1}
# FailIndex needs a limit for each index, and a policy that the kubelet restarts nothing.
_NEVER_RESTARTED = {
    **_POD,
    "properties": {**_POD["properties"], "restartPolicy": {"const": "Never"}},
}
_JOB = {
    "oneOf": [
        _object("backoffLimit template", backoffLimit=_WHOLE, template=_object("spec", spec=_POD)),
        _object(
            "completionMode completions parallelism backoffLimitPerIndex podFailurePolicy template",
            completionMode={"const": "Indexed"},
            completions=_COUNT,
            parallelism=_COUNT,
            backoffLimitPerIndex=_WHOLE,
            podFailurePolicy=_object("rules", rules=_list(_RULE)),
            template=_object("spec", spec=_NEVER_RESTARTED),
        ),
    ]
}
# batch/v1, https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/cron-job-v1/
CRON_JOB = _object(
    "apiVersion kind metadata spec",
    apiVersion={"const": "batch/v1"},
    kind={"const": "CronJob"},
    metadata=_object("name", name={**_NAMED, "maxLength": 52}),
    spec=_object(
        "schedule concurrencyPolicy jobTemplate",
        schedule=_TEXT,
        timeZone=_TEXT,
        concurrencyPolicy={"enum": ["Allow", "Forbid", "Replace"]},
        jobTemplate=_object("spec", spec=_JOB),
    ),
)
