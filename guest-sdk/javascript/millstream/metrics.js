// Numbers that operators see beside the host's own. What they are told during a call reaches the host once, at its end, and
// only if the call succeeds.

import { DeclarationError, shown } from './errors.js';

const KINDS = ['counter', 'gauge', 'histogram'];

class Metric {
  told = [];
  take() {
    const { told } = this;
    this.told = [];
    return told;
  }
}

class Counter extends Metric {
  /** Adds `value`, which must not be negative. */
  add(value = 1) {
    if (!(value >= 0)) throw new RangeError(`a counter only grows, but ${value} was added`);
    this.told = [(this.told[0] ?? 0) + value];
  }
}

class Gauge extends Metric {
  /** Sets it. */
  set(value) {
    this.told = [Number(value)];
  }
}

class Histogram extends Metric {
  /** Counts a value. */
  observe(value) {
    this.told.push(Number(value));
  }
}

const CLASSES = { counter: Counter, gauge: Gauge, histogram: Histogram };

/** The declarations of metrics, `{ rides: { kind: "counter", doc: "Rides seen" } }`. */
export function declared(metrics) {
  return Object.entries(metrics).map(([name, { kind, doc = '' }]) => {
    if (!KINDS.includes(kind)) throw new DeclarationError(`metrics.${name}.kind is ${shown(kind)}: there are ${KINDS.join(', ')}`);
    return { name, summary: doc, kind };
  });
}

/** The metrics that were declared. */
export const made = (declarations) => Object.fromEntries(declarations.map(({ name, kind }) => [name, new CLASSES[kind]()]));
