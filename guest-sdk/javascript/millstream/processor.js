// Processors: rows in, rows for branches out.

import { Batch, rows } from './batch.js';
import { Crash, DeclarationError, described, told } from './errors.js';
import { Output } from './output.js';
import { Definition } from './plugin.js';

/** Makes a processor of its declaration; the module exports it by default. */
export function processor(declared) {
  const definition = new Definition('processor', declared);
  const { process, processBatch } = declared;
  if ((process === undefined) === (processBatch === undefined)) {
    const what = process === undefined ? 'neither' : 'both';
    throw new DeclarationError(`there are ${what} of process(row, out) and processBatch(batch, out): a processor has one of them`);
  }
  const several = process !== undefined && typeof process === 'object';
  if (several) {
    for (const { name } of definition.inputs) {
      if (typeof process[name] !== 'function') throw new DeclarationError(`process.${name} is no function: there is one for each input`);
    }
  } else if (typeof (process ?? processBatch) !== 'function') {
    throw new DeclarationError(`${process === undefined ? 'processBatch' : 'process'} is no function`);
  }
  return definition;
}

/** A configured processor. */
export class Processing {
  constructor(definition, config, host) {
    const { context, signature, stores } = definition.configure(config, host);
    this.definition = definition;
    this.context = context;
    this.signature = signature;
    this.stores = stores;
    this.update = host.update;
    this.metrics = Object.values(context.metrics);
    this.out = new Output(definition.branches);
    const out = this.out;
    if (definition.declared.processBatch) {
      this.by = { ...out.by, emit: (name, origins, cells) => out.emit(name, origins, cells), fail: (row, error) => out.fail(row, error) };
    } else this.by = out.by;
  }

  /** Answers one call of the host. */
  process(number, table) {
    const input = this.definition.inputs[number];
    const { declared } = this.definition;
    try {
      this.out.begin(table.rows);
      if (declared.processBatch) {
        none(declared.processBatch(new Batch(input, table), this.by, this.context), 'processBatch');
      } else this.rows(input, table, typeof declared.process === 'function' ? declared.process : declared.process[input.name]);
      const answer = this.out.finish();
      for (const store of this.stores) store.flush();
      for (let at = 0; at < this.metrics.length; at++) for (const value of this.metrics[at].take()) this.update(at, value);
      return answer;
    } catch (error) {
      for (const store of this.stores) store.forget();
      for (const metric of this.metrics) metric.take();
      throw error;
    }
  }

  rows(input, table, process) {
    const { out, by, context, stores } = this;
    const { row, unsafe } = rows(input, table);
    const keeps = stores.length > 0;
    if (keeps && this.definition.declared.prefetch) {
      const all = [];
      for (let at = 0; at < table.rows; at++) if (!unsafe.has(at)) all.push(row(at));
      this.definition.declared.prefetch(all, context);
    }
    for (let at = 0; at < table.rows; ) {
      // Entering `try` once, and again after each row that fails, is cheaper than for each row.
      try {
        for (; at < table.rows; at++) {
          out.row = at;
          if (unsafe.size > 0 && unsafe.has(at)) {
            out.failed.set(at, unsafe.get(at));
            continue;
          }
          if (keeps) for (const store of stores) store.nextRow();
          const answer = process(row(at), by, context);
          if (answer !== undefined) none(answer, 'process');
        }
      } catch (error) {
        if (error instanceof Crash) throw error;
        out.fail(at, told(error));
        for (const store of stores) store.undoRow();
        at++;
      }
    }
  }
}

/** Functions emit; they return nothing. */
export function none(answer, name) {
  if (answer === undefined) return;
  if (typeof answer?.then === 'function') throw new TypeError(`${name} returned a promise: a plugin cannot wait, so it is no async function`);
  throw new TypeError(`${name} returned ${described(answer)}: rows are emitted, as out.high(), and nothing is returned`);
}
