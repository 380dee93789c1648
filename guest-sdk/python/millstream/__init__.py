"""Write Millstream plugins in Python.

A plugin does not parse records. Its classes say which fields it reads and emits; the host decodes a batch of records
into columns, calls the plugin, and encodes what comes back, whatever the format of the topic is.

    from millstream import branch, processor, row

    @row
    class Ride:
        total_amount: float

    @branch
    class High: ...

    @branch
    class Low: ...

    @processor
    class Split:
        '''Sends rides to the branch high or low by their amount.'''

        threshold: float = 40.0

        def process(self, ride: Ride) -> High | Low:
            return High() if ride.total_amount >= self.threshold else Low()
"""

from .aggregator import Groups, aggregator
from .batch import Batch
from .errors import DeclarationError, NotGranted, Reject, crash
from .fields import (
    Json,
    JsonText,
    Time,
    added,
    branch,
    header,
    key,
    offset,
    raw_key,
    raw_value,
    row,
    timestamp,
    tombstone,
    value,
    was,
)
from .metrics import Counter, Gauge, Histogram
from .output import Output
from .processor import processor
from .schema import Signature
from .settings import Pointer
from .store import Store

__all__ = [
    "Batch", "Counter", "DeclarationError", "Gauge", "Groups", "Histogram", "Json", "JsonText", "NotGranted", "Output",
    "Pointer", "Reject", "Signature", "Store", "Time", "added", "aggregator", "branch", "crash", "header", "key", "offset",
    "processor", "raw_key", "raw_value", "row", "timestamp", "tombstone", "value", "was",
]
