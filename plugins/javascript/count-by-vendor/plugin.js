// Counts records by a field, and emits for each the count so far.

import { processor, s, t, value } from 'millstream';

export default processor({
  settings: {
    field: s.pointer({ default: '/VendorID', doc: 'Where the number that records are counted by is in the value.' }),
  },
  input: { vendor: t.integer({ bigint: true }) },
  branches: { counted: { value: 'new', fields: { vendor: t.integer(), count: t.integer() } } },
  stores: { counts: { key: t.integer({ bigint: true }), value: t.integer() } },
  signature(signature, settings) {
    signature.input().field('vendor').place = value(settings.field);
  },
  prefetch(rides, { stores }) {
    stores.counts.prefetch(rides.map((ride) => ride.vendor));
  },
  process({ vendor }, out, { stores }) {
    const count = (stores.counts.get(vendor) ?? 0) + 1;
    stores.counts.set(vendor, count);
    out.counted({ vendor, count });
  },
});
