// Write Millstream plugins in JavaScript.
//
// A plugin does not parse records. It says which fields it reads and emits; the host decodes a batch of records into columns,
// calls the plugin, and encodes what comes back, whatever the format of the topic is.
//
//     import { processor, s, t } from 'millstream';
//
//     export default processor({
//       settings: { threshold: s.float({ default: 40 }) },
//       input: { total_amount: t.float() },
//       branches: { high: {}, low: {} },
//       process(ride, out, { settings }) {
//         if (ride.total_amount >= settings.threshold) out.high();
//         else out.low();
//       },
//     });

export { aggregator } from './aggregator.js';
export { DeclarationError, NotGranted, Reject, crash } from './errors.js';
export { header, key, offset, rawKey, rawValue, t, timestamp, tombstone, value } from './fields.js';
export { processor } from './processor.js';
export { s } from './settings.js';
