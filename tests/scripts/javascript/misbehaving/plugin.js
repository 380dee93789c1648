// Does what each row says.

import { Reject, processor, s, t } from 'millstream';

const kept = [];

const does = {
  plain: (out) => out.plain(),
  nothing: () => {},
  many(out) {
    for (let number = 0; number < 3; number++) out.typed({ number, text: 'é' });
  },
  half_way(out) {
    out.plain();
    throw new RangeError('half-way');
  },
  divides: () => undefined.length,
  rejects() {
    throw new Reject('not wanted');
  },
  throws_text() {
    throw 'a text';
  },
  chained() {
    try {
      JSON.parse('{');
    } catch (cause) {
      throw new Error('cannot read it', { cause });
    }
  },
  returns_number: () => 5,
  is_async: async () => {},
  wrong_cell: (out) => out.typed({ number: 'seven', text: '' }),
  none_cell: (out) => out.typed({ number: null, text: '' }),
  great_cell: (out) => out.typed({ number: 1n << 63n, text: '' }),
  fraction_cell: (out) => out.typed({ number: 1.5, text: '' }),
  no_such_field: (out) => out.typed({ number: 1, txt: '' }),
  no_such_branch: (out) => out.other(),
  clock: (out) => out.typed({ number: Date.now(), text: '' }),
  now: (out) => out.typed({ number: 1, text: String(new Date()) }),
  randomness: (out) => out.typed({ number: Math.random(), text: '' }),
  connects: () => fetch('https://example.org'),
  sleeps: () => setTimeout(() => {}, 1000),
  runs: () => new Worker('x.js'),
  requires: () => require('fs'),
  recursion: (out) => does.recursion(out) + 1,
  memory(out) {
    const all = [];
    for (;;) all.push(new Uint8Array(1 << 24).fill(1));
  },
  loops() {
    for (;;);
  },
  prints(out) {
    const line = 'x'.repeat(999);
    for (let count = 0; count < 100_000; count++) console.log(line);
    out.plain();
  },
  keeps(out, row) {
    kept.push(row);
    out.typed({ number: kept.length, text: kept.slice(0, 3).map(({ what }) => what).join('') });
  },
};

export default processor({
  settings: { refuse: s.boolean({ default: false, doc: 'Whether the configuration is refused by a fault.' }) },
  input: { what: t.text() },
  branches: {
    plain: {},
    typed: { value: 'new', fields: { number: t.integer(), text: t.text(), maybe: t.float({ optional: true }) } },
  },
  configure({ refuse }) {
    if (refuse) undefined.absent;
  },
  process(row, out) {
    const action = does[row.what.replaceAll('-', '_')];
    return action(out, row);
  },
});
