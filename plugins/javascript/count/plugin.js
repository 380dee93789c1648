// Counts the records of a group.

import { aggregator, t } from 'millstream';

export default aggregator({
  accumulator: t.integer(),
  branches: { counted: { fields: { count: t.integer() } } },
  start: () => 0,
  add: (count) => count + 1,
  merge: (count, later) => count + later,
  finish(count, out) {
    out.counted({ count });
  },
});
