// Adds to taxi rides what their other fields imply: how long and how fast they were, and how much was tipped.

import { Reject, processor, t } from 'millstream';

const KILOMETRES_PER_MILE = 1.609344;

export default processor({
  input: {
    pickup: t.time({ at: '/tpep_pickup_datetime' }),
    dropoff: t.time({ at: '/tpep_dropoff_datetime' }),
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
    if (duration_ms < 0) throw new Reject(`the ride ends ${Math.floor(-duration_ms / 1000)} s before it begins`);
    const hours = duration_ms / 3_600_000;
    out.enriched({
      duration_s: Math.floor(duration_ms / 1000),
      speed_kmh: duration_ms > 0 ? (ride.trip_distance * KILOMETRES_PER_MILE) / hours : null,
      tip_share: ride.fare_amount > 0 ? (ride.tip_amount ?? 0) / ride.fare_amount : null,
    });
  },
});
