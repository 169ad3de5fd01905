"""Why reading stops before the end. These do not leave the package: a verdict does."""


class Fault(Exception):
    """Why reading stopped, and at which byte."""

    def __init__(self, offset: int, why: str) -> None:
        super().__init__(offset, why)
        self.offset = offset
        self.why = why


class Ended(Fault):
    """The stream ends where the format does not."""


class Damaged(Fault):
    """Bytes that no server writes."""


class Unknown(Fault):
    """A type or opcode that we cannot skip: newer than we are, or a vendor's own."""
