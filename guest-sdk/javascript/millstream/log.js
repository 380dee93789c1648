// `console` becomes lines of the plugin's log.

/** Lines that a call hands to the host, which shows fewer; a flood is to cost little. */
const LINES_OF_CALL_MAX = 1000;
/** Of a line; the host keeps fewer bytes. */
const LINE_CHARACTERS_MAX = 5000;

let write = () => {};
let lines = 0;
let leftOut = 0;

/** Writes a line, unless this call has written too many. */
export function line(level, text) {
  if (lines >= LINES_OF_CALL_MAX) {
    leftOut++;
    return;
  }
  lines++;
  write(level, text.slice(0, LINE_CHARACTERS_MAX).toWellFormed());
}

/** Says how many lines were left out. */
export function endCall() {
  if (leftOut > 0) write('warn', `${leftOut} more lines of this call are left out`);
  lines = leftOut = 0;
}

function formatted(values) {
  const one = (value) => {
    if (typeof value === 'string') return value;
    if (value instanceof Error) return `${value.name}: ${value.message}`;
    if (typeof value === 'bigint') return `${value}n`;
    if (value === null || typeof value !== 'object') return String(value);
    try {
      return JSON.stringify(value, (_, member) => (typeof member === 'bigint' ? `${member}n` : member));
    } catch {
      return String(value);
    }
  };
  return values.map(one).join(' ');
}

/** From here on. */
export function install(host) {
  write = host;
  const levels = { trace: 'trace', debug: 'debug', log: 'info', info: 'info', warn: 'warn', error: 'error' };
  const printing = {};
  for (const [name, level] of Object.entries(levels)) {
    printing[name] = (...values) => {
      for (const text of formatted(values).split('\n')) line(level, text);
    };
  }
  printing.assert = (condition, ...values) => condition || printing.error('assertion failed', ...values);
  const nothing = () => {};
  for (const name of ['count', 'countReset', 'dir', 'group', 'groupCollapsed', 'groupEnd', 'table', 'time', 'timeEnd', 'timeLog']) {
    printing[name] = nothing;
  }
  printing.dir = printing.table = printing.log;
  globalThis.console = printing;
}
