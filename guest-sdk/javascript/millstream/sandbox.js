// What no plugin has, told in JavaScript's own terms. What a module does while it is imported, at build time, is allowed: it
// becomes part of the component.

import { NotGranted } from './errors.js';

const CLOCK = 'a plugin has no clock, so that its results can be repeated: read the record\'s time from a field with { at: timestamp }';
const RANDOM = 'a plugin has no randomness, so that its results can be repeated: compute what you need from the record';
const TIMERS = 'a plugin cannot wait: it is called with records, and answers';
const NETWORK = 'a plugin has no network: what it needs comes in records, tables and settings';
const WORKERS = 'a plugin cannot start workers: the host runs as many instances of it as there is work for';

let sealed = false;

/** The component is made: from here on nothing is granted. */
export function seal() {
  sealed = true;
}

function refusing(name, message, original) {
  return function (...args) {
    if (sealed || typeof original !== 'function') throw new NotGranted(`${name}: ${message}`);
    return original.apply(this, args);
  };
}

/** Puts the refusals in place, before the plugin is imported. */
export function install() {
  const Native = globalThis.Date;
  const now = refusing('Date.now', CLOCK, Native.now.bind(Native));
  function SandboxDate(...args) {
    if (sealed && (!new.target || args.length === 0)) throw new NotGranted(`new Date(): ${CLOCK}`);
    return new.target ? Reflect.construct(Native, args, new.target) : Native();
  }
  Object.defineProperty(SandboxDate, 'name', { value: 'Date' });
  SandboxDate.prototype = Native.prototype;
  Native.prototype.constructor = SandboxDate;
  Object.assign(SandboxDate, { now, parse: Native.parse, UTC: Native.UTC });
  globalThis.Date = SandboxDate;
  Math.random = refusing('Math.random', RANDOM, Math.random);
  if (globalThis.performance) {
    Object.defineProperty(globalThis, 'performance', { value: { now: refusing('performance.now', CLOCK) }, configurable: true });
  }
  if (globalThis.crypto) {
    for (const name of ['getRandomValues', 'randomUUID']) {
      Object.defineProperty(globalThis.crypto, name, { value: refusing(`crypto.${name}`, RANDOM), configurable: true });
    }
  }
  for (const name of ['setTimeout', 'setInterval', 'setImmediate']) globalThis[name] = refusing(name, TIMERS);
  for (const name of ['fetch', 'XMLHttpRequest', 'WebSocket', 'EventSource']) globalThis[name] = refusing(name, NETWORK);
  globalThis.Worker = refusing('Worker', WORKERS);
}
