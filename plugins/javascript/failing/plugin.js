// Fails at rows whose `n` is negative, in the way that a setting says.

import { Reject, crash, processor, s, t } from 'millstream';

function check(n, mode) {
  if (n < 0 && mode !== 'log-flood') throw new RangeError(`n is negative: ${n}`);
}

export default processor({
  settings: {
    mode: s.choice(['row-error', 'call-error', 'panic', 'configure-error', 'log-flood'], {
      default: 'row-error',
      doc: 'How a row with a negative `n` fails.',
    }),
  },
  input: { n: t.integer({ bigint: true }) },
  branches: { passed: {} },
  configure({ mode }) {
    if (mode === 'configure-error') throw new Reject('the mode says that the configuration is refused');
  },
  processBatch(batch, out, { settings: { mode } }) {
    const passed = [];
    batch.n.forEach((n, row) => {
      if (mode === 'log-flood') for (let line = 0; line < 100; line++) console.info(`line ${line} of row ${row}`);
      try {
        check(n, mode);
        passed.push(row);
      } catch (error) {
        if (mode === 'call-error') throw error;
        if (mode === 'panic') crash(`n is negative: ${n}`);
        out.fail(row, error);
      }
    });
    out.emit('passed', passed);
  },
});
