"""Sends records to the branch high or low by the amount in a field."""

from typing import Annotated

from millstream import Pointer, branch, processor, row, value


@row
class Row:
    amount: float


@branch
class High: ...


@branch
class Low: ...


@processor
class BranchByAmount:
    threshold: Annotated[float, "Records of this amount and more are high."] = 40.0
    field: Annotated[Pointer, "Where the amount is in the value."] = "/total_amount"

    def signature(self, signature):
        signature.input().field("amount").place = value(self.field)

    def process(self, row: Row) -> High | Low:
        return High() if row.amount >= self.threshold else Low()
