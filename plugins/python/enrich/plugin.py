"""Adds to taxi rides what their other fields imply: how long and how fast they were, and how much was tipped."""

from typing import Annotated

from millstream import Reject, Time, branch, processor, row, value

KILOMETRES_PER_MILE = 1.609344


@row
class Ride:
    pickup: Annotated[Time, value("/tpep_pickup_datetime")]
    dropoff: Annotated[Time, value("/tpep_dropoff_datetime")]
    # In miles.
    trip_distance: float
    fare_amount: float
    tip_amount: float | None


@branch
class Enriched:
    duration_s: int
    # None for a ride that took no time.
    speed_kmh: float | None
    # Of the fare; None where there is none.
    tip_share: float | None


@processor
class Enrich:
    def process(self, ride: Ride) -> Enriched:
        duration_ms = ride.dropoff - ride.pickup
        if duration_ms < 0:
            raise Reject(f"the ride ends {-duration_ms // 1000} s before it begins")
        hours = float(duration_ms) / 3_600_000
        return Enriched(
            duration_s=duration_ms // 1000,
            speed_kmh=ride.trip_distance * KILOMETRES_PER_MILE / hours if duration_ms > 0 else None,
            tip_share=(ride.tip_amount or 0.0) / ride.fare_amount if ride.fare_amount > 0 else None,
        )
