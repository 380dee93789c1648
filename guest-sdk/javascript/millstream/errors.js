// What goes wrong, and how it is told.

/** Refuses a row, or a configuration, with a message for people. Unlike other errors it is no fault of the plugin, and is
 * shown without a stack. */
export class Reject extends Error {
  constructor(message) {
    super(message);
    this.name = 'Reject';
  }
}

/** The plugin says of itself what cannot be: `millstream build` shows it. */
export class DeclarationError extends Error {
  constructor(message) {
    super(message);
    this.name = 'DeclarationError';
  }
}

/** The plugin asks for what no plugin has: a clock, randomness, files, the network, timers. */
export class NotGranted extends Error {
  constructor(message) {
    super(message);
    this.name = 'NotGranted';
  }
}

/** Ends the call as a crash does: the glue lets it through. */
export class Crash extends Error {
  constructor(message) {
    super(message);
    this.name = 'Crash';
  }
}

/** Ends the call at once, for what must not happen: the host takes another instance. */
export function crash(message) {
  throw new Crash(message);
}

// Where the build puts the plugin's own files.
const OWN = /^(?:.*@)?(?:[^@]*\/)?plugin\//;

/** The message of a failure: what happened, then where, the plugin's own frames alone. */
export function told(error) {
  if (error instanceof Reject) return error.message || 'rejected';
  if (!(error instanceof Error)) return `${shown(error)} was thrown: throw an Error, so that it says where`;
  let text = `${error.name}: ${error.message}`;
  for (const line of String(error.stack ?? '').split('\n')) {
    const found = /^(.*?)@(.*:\d+:\d+)$/.exec(line);
    if (found && OWN.test(line)) text += `\n    at ${found[1] || '(top level)'} (${found[2].replace(/^.*plugin\//, '')})`;
  }
  return error.cause === undefined ? text : `${text}\ncaused by ${told(error.cause)}`;
}

/** A value as people write it, cut short. */
export function shown(value) {
  let text;
  if (typeof value === 'bigint') text = `${value}n`;
  else if (typeof value === 'function') text = `the function ${value.name}`;
  else {
    try {
      text = JSON.stringify(value) ?? String(value);
    } catch {
      text = String(value);
    }
  }
  return text.length <= 60 ? text : `${text.slice(0, 57)}...`;
}

/** A value with its type. */
export function described(value) {
  if (value === null || value === undefined) return String(value);
  const type = typeof value === 'object' ? (value.constructor?.name ?? 'object') : typeof value;
  return `${shown(value)} (${type})`;
}
