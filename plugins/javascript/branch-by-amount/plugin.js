// Sends records to the branch high or low by the amount in a field.

import { processor, s, t, value } from 'millstream';

export default processor({
  settings: {
    threshold: s.float({ default: 40, doc: 'Records of this amount and more are high.' }),
    field: s.pointer({ default: '/total_amount', doc: 'Where the amount is in the value.' }),
  },
  input: { amount: t.float() },
  branches: { high: {}, low: {} },
  signature(signature, settings) {
    signature.input().field('amount').place = value(settings.field);
  },
  process(row, out, { settings }) {
    if (row.amount >= settings.threshold) out.high();
    else out.low();
  },
});
