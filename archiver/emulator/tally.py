"""What was asked of the emulator."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """Counts from the start on, for tests and rehearsals; set them back as you like.

    api_calls         requests to the API, whatever the answer
    calls_by_action   those that were let in, by action
    object_requests   requests for objects, whatever the answer
    object_bytes      bytes of object bodies handed to the network
    refused           error answers of API and objects, by code
    """

    api_calls: int = 0
    calls_by_action: Counter[str] = field(default_factory=Counter)
    object_requests: int = 0
    object_bytes: int = 0
    refused: Counter[str] = field(default_factory=Counter)
