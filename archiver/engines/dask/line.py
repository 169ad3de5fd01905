"""An encrypted line between a coordinator and one of its workers.

Signed URLs and the password of a proxy pass through the scheduler, and dask logs whole messages at
level DEBUG. Each side makes a key for this run, and only public keys are sent in the clear.
"""

import copyreg
import io
import os
import pickle
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from archiver.secret import Secret

_NONCE_BYTES: Final = 12


class Line:
    """One end of it; ``public`` is what the other end needs of this one."""

    def __init__(self) -> None:
        self._private: Final = X25519PrivateKey.generate()
        self.public: Final = self._private.public_key().public_bytes_raw()
        self._cipher: ChaCha20Poly1305 | None = None

    def connect(self, public: bytes) -> None:
        """Connect to the other end by its ``public``."""
        shared = self._private.exchange(X25519PublicKey.from_public_bytes(public))
        derived = HKDF(SHA256(), 32, salt=None, info=b"archiver").derive(shared)
        self._cipher = ChaCha20Poly1305(derived)

    def pack(self, value: object) -> bytes:
        """A value for the other end. It may hold secrets, which are pickled nowhere else."""
        packed, nonce = io.BytesIO(), os.urandom(_NONCE_BYTES)
        pickler = pickle.Pickler(packed)
        pickler.dispatch_table = copyreg.dispatch_table | {Secret: _revealed}
        pickler.dump(value)
        return nonce + self._connected.encrypt(nonce, packed.getvalue(), None)

    def unpack(self, data: bytes) -> Any:  # noqa: ANN401 - whatever was packed
        """What the other end packed. Raises InvalidTag for what somebody else did."""
        nonce, sealed = data[:_NONCE_BYTES], data[_NONCE_BYTES:]
        # Only after it was authenticated: unpickling can run any code.
        return pickle.loads(self._connected.decrypt(nonce, sealed, None))  # noqa: S301

    @property
    def _connected(self) -> ChaCha20Poly1305:
        if self._cipher is None:
            raise RuntimeError("a line is used before it was connected")
        return self._cipher


def _revealed(secret: Secret) -> tuple[type[Secret], tuple[str]]:
    return Secret, (secret.reveal(),)
