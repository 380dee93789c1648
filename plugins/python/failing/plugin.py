"""Fails at rows whose `n` is negative, in the way that a setting says."""

import logging
from typing import Annotated, Literal

from millstream import Batch, Output, Reject, branch, crash, processor, row


@row
class Row:
    n: int


@branch
class Passed: ...


@processor
class Failing:
    mode: Annotated[
        Literal["row-error", "call-error", "panic", "configure-error", "log-flood"], "How a row with a negative `n` fails."
    ] = "row-error"

    def __post_init__(self):
        if self.mode == "configure-error":
            raise Reject("the mode says that the configuration is refused")

    def process_batch(self, batch: Batch[Row], out: Output[Passed]):
        passed = []
        for row, n in enumerate(batch.n):
            if self.mode == "log-flood":
                for line in range(100):
                    logging.info("line %d of row %d", line, row)
            try:
                self.check(n)
                passed.append(row)
            except ValueError as error:
                if self.mode == "call-error":
                    raise
                if self.mode == "panic":
                    crash(f"n is negative: {n}")
                out.fail(row, error)
        out.emit(Passed, passed)

    def check(self, n):
        if n < 0 and self.mode != "log-flood":
            raise ValueError(f"n is negative: {n}")
