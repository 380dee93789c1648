// Aggregators: many rows folded into one.

import { Batch, rows } from './batch.js';
import { Crash, DeclarationError, told } from './errors.js';
import { bare } from './fields.js';
import { Output } from './output.js';
import { Definition } from './plugin.js';
import { none } from './processor.js';
import { Shape } from './store.js';

/** Makes an aggregator of its declaration; the module exports it by default. */
export function aggregator(declared) {
  const definition = new Definition('aggregator', declared);
  for (const name of ['start', 'merge', 'finish']) {
    if (typeof declared[name] !== 'function') throw new DeclarationError(`there is no ${name}(…): an aggregator has start, add, merge and finish`);
  }
  if ((declared.add === undefined) === (declared.addBatch === undefined)) {
    const what = declared.add === undefined ? 'neither' : 'both';
    throw new DeclarationError(`there are ${what} of add(accumulator, row) and addBatch(batch, groups): an aggregator has one of them`);
  }
  if (declared.accumulator === undefined) throw new DeclarationError('say what is kept of a group: accumulator: t.integer(), or an object of types');
  definition.accumulator = new Shape(declared.accumulator, 'accumulator', 'accumulator');
  return definition;
}

/** A configured aggregator. */
export class Aggregating {
  constructor(definition, config, host) {
    const { context, signature } = definition.configure(config, host);
    this.definition = definition;
    this.declared = definition.declared;
    this.shape = definition.accumulator;
    this.context = context;
    this.signature = signature;
    this.update = host.update;
    this.metrics = Object.values(context.metrics);
    this.out = new Output(definition.branches);
  }

  initial() {
    return { fields: this.shape.fields.map(bare), start: this.shape.table([this.declared.start(this.context)]) };
  }

  accumulate(number, accumulators, groups, table) {
    return this.call(() => {
      const input = this.definition.inputs[number];
      const at = groups.byteOffset % 4 === 0 ? groups : groups.slice();
      const numbers = new Uint32Array(at.buffer, at.byteOffset, at.byteLength / 4);
      const found = Array.from(this.shape.read(accumulators));
      const failed = new Map();
      if (this.declared.addBatch) {
        const lent = { accumulators: found, ofRows: numbers, fail: (row, error) => failed.has(row) || failed.set(row, typeof error === 'string' ? error : told(error)) };
        none(this.declared.addBatch(new Batch(input, table), lent, this.context), 'addBatch');
      } else this.add(found, accumulators, numbers, input, table, failed);
      if (found.length !== accumulators.rows) throw new TypeError('the accumulators of a call may not become fewer or more');
      return {
        accumulators: this.shape.table(found),
        failed: [...failed].sort(([one], [other]) => one - other).map(([row, message]) => ({ row, message })),
      };
    });
  }

  add(found, accumulators, numbers, input, table, failed) {
    const { add } = this.declared;
    const { context, shape } = this;
    const { row, unsafe } = rows(input, table);
    const one = (before, at) => {
      const after = add(before, row(at), context);
      if (after !== undefined) return after;
      if (shape.alone) throw new TypeError('add returned nothing: it returns what is kept with the row added');
      return before;
    };
    for (let at = 0; at < table.rows; at++) {
      const group = numbers[at];
      if (unsafe.has(at)) {
        failed.set(at, unsafe.get(at));
        continue;
      }
      try {
        found[group] = one(found[group], at);
      } catch (error) {
        if (error instanceof Crash) throw error;
        failed.set(at, told(error));
        if (!shape.mutable) continue;
        // What the row changed before it failed is taken back: the rows before it are added once more.
        let again = shape.read(accumulators)[group];
        for (let earlier = 0; earlier < at; earlier++) {
          if (numbers[earlier] === group && !failed.has(earlier)) again = one(again, earlier);
        }
        found[group] = again;
      }
    }
  }

  merge(left, right) {
    return this.call(() => {
      const later = this.shape.read(right);
      const merged = Array.from(this.shape.read(left), (before, at) => {
        const after = this.declared.merge(before, later[at], this.context);
        if (after === undefined && this.shape.alone) throw new TypeError('merge returned nothing: it returns what both make together');
        return after ?? before;
      });
      return this.shape.table(merged);
    });
  }

  finish(accumulators) {
    return this.call(() => {
      const { out } = this;
      out.begin(accumulators.rows);
      const found = this.shape.read(accumulators);
      for (let at = 0; at < found.length; at++) {
        out.row = at;
        try {
          none(this.declared.finish(found[at], out.by, this.context), 'finish');
        } catch (error) {
          if (error instanceof Crash) throw error;
          out.fail(at, told(error));
        }
      }
      return out.finish();
    });
  }

  call(answer) {
    try {
      const answered = answer();
      for (let at = 0; at < this.metrics.length; at++) for (const value of this.metrics[at].take()) this.update(at, value);
      return answered;
    } catch (error) {
      for (const metric of this.metrics) metric.take();
      throw error;
    }
  }
}
