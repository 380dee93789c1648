"""Counts records by a field, and emits for each the count so far."""

from typing import Annotated

from millstream import Pointer, Store, branch, processor, row, value


@row
class Ride:
    vendor: int


@branch(value="new")
class Counted:
    vendor: int
    count: int


@processor
class CountByVendor:
    field: Annotated[Pointer, "Where the number that records are counted by is in the value."] = "/VendorID"
    counts: Store[int, int]

    def signature(self, signature):
        signature.input().field("vendor").place = value(self.field)

    def prefetch(self, rides):
        self.counts.prefetch(ride.vendor for ride in rides)

    def process(self, ride: Ride) -> Counted:
        count = self.counts.get(ride.vendor, 0) + 1
        self.counts[ride.vendor] = count
        return Counted(ride.vendor, count)
