"""What a bucket itself does for its objects: versions, locks, encryption."""

from dataclasses import dataclass

from archiver.errors import StoreError, StoreForbidden
from archiver.stores.s3.client import S3Client


@dataclass(frozen=True, slots=True)
class Protection:
    """In the store's words; ``not visible`` where the access key may not see it."""

    versioning: str
    lock: str
    encryption: str

    def __str__(self) -> str:
        return (
            f"versioning {self.versioning}, object lock {self.lock}, encryption {self.encryption}"
        )


def protection(client: S3Client, key: str) -> Protection:
    """What the bucket does, and how the object at ``key`` is encrypted. Blocks; raises nothing."""
    return Protection(_versioning(client), _lock(client), _encryption(client, key))


def _versioning(client: S3Client) -> str:
    try:
        return str(client.request("get_bucket_versioning").get("Status") or "off").lower()
    except StoreForbidden:
        return "not visible"
    except StoreError:
        return "not known to this store"


def _lock(client: S3Client) -> str:
    try:
        answer = client.request("get_object_lock_configuration")
    except StoreForbidden:
        return "not visible"
    except StoreError:  # also where there is no configuration
        return "off"
    found = answer.get("ObjectLockConfiguration") or {}
    if found.get("ObjectLockEnabled") != "Enabled":
        return "off"
    default = (found.get("Rule") or {}).get("DefaultRetention") or {}
    span = " ".join(
        f"{default[unit]} {unit.lower()}" for unit in ("Days", "Years") if unit in default
    )
    return f"on ({str(default.get('Mode', '')).lower()}, {span})" if span else "on, no default"


def _encryption(client: S3Client, key: str) -> str:
    try:
        answer = client.request("head_object", key)
    except StoreError:
        return "not visible"
    return str(answer.get("ServerSideEncryption") or "not reported")
