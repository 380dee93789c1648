// Adds to taxi rides what their other fields imply: how long and how fast they were, and how much was tipped.

import { Reject, processor, t } from 'millstream';

const KILOMETRES_PER_MILE = 1.609344;

export default processor({
  input: {
    pickup: t.time({ at: '/tpep_pickup_datetime', bigint: true }),
    dropoff: t.time({ at: '/tpep_dropoff_datetime', bigint: true }),
    // In miles.
    trip_distance: t.float(),
    fare_amount: t.float(),
    tip_amount: t.float({ optional: true }),
  },
  branches: {
    enriched: {
      fields: {
        duration_s: t.integer(),
        // Null for a ride that took no time.
        speed_kmh: t.float({ optional: true }),
        // Of the fare; null where there is none.
        tip_share: t.float({ optional: true }),
      },
    },
  },
  process(ride, out) {
    const duration_ms = ride.dropoff - ride.pickup;
    if (duration_ms < 0n) throw new Reject(`the ride ends ${-duration_ms / 1000n} s before it begins`);
    const hours = Number(duration_ms) / 3_600_000;
    out.enriched({
      duration_s: duration_ms / 1000n,
      speed_kmh: duration_ms > 0n ? (ride.trip_distance * KILOMETRES_PER_MILE) / hours : null,
      tip_share: ride.fare_amount > 0 ? (ride.tip_amount ?? 0) / ride.fare_amount : null,
    });
  },
});
