"""An object that is in its place without a record: whether it is the one at the source."""

from archiver.model import Measured, Pin, Receipt
from archiver.transfer.origin import AT_THE_SOURCE, Origin
from archiver.transfer.part import Shared
from archiver.transfer.receipt import Cost, is_proven, receipt_for


async def recognise(shared: Shared, origin: Origin, measured: Measured) -> Receipt | None:
    """A receipt for an object of this measure, or None where the source does not prove it.

    Asks with the least of requests. Raises SourceError, BackupFailed when there is no answer.
    """
    cost = Cost(0)
    pin = await _ask(shared, origin, cost)
    if not is_proven(measured, pin):
        return None
    return receipt_for(measured, pin, max(1, measured.size), cost)


async def _ask(shared: Shared, origin: Origin, cost: Cost) -> Pin:
    """What the source says of the object."""
    attempts = shared.attempts(str(origin.backup))
    while True:
        way = await origin.way()
        try:
            async with way.open(0, min(1, origin.backup.size), None) as body:
                cost.provenance = way.provenance
                return body.answer.pin
        except AT_THE_SOURCE as error:
            cost.attempts += 1
            await way.recover(error, attempts)
