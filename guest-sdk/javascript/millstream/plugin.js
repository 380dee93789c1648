// What every kind of plugin has: settings, stores, metrics and a signature.

import * as metrics from './metrics.js';
import * as output from './output.js';
import * as settings from './settings.js';
import * as stores from './store.js';
import { rowMaker } from './columns.js';
import { DeclarationError, described, shown } from './errors.js';
import { fieldsOf, mapped, value } from './fields.js';

const COMMON = ['settings', 'input', 'inputs', 'branches', 'metrics', 'signature', 'configure'];
const OWN = {
  processor: ['stores', 'prefetch', 'process', 'processBatch'],
  aggregator: ['accumulator', 'start', 'add', 'addBatch', 'merge', 'finish'],
};

/** A plugin, taken apart when it is defined, so that all of this is in the component's snapshot. */
export class Definition {
  constructor(kind, declared) {
    if (declared === null || typeof declared !== 'object') {
      throw new DeclarationError(`${kind}(…) takes an object, not ${described(declared)}`);
    }
    const known = [...COMMON, ...OWN[kind]];
    for (const name of Object.keys(declared)) {
      if (!known.includes(name)) throw new DeclarationError(`${kind}(…) has no member "${name}": there are ${known.join(', ')}`);
    }
    this.kind = kind;
    this.declared = declared;
    this.settings = declared.settings ?? {};
    this.schema = settings.schemaText(this.settings);
    this.inputs = inputs(kind, declared);
    this.branches = output.declare(declared.branches);
    if (kind === 'aggregator') for (const branch of this.branches) branch.value = 'new';
    this.stores = Object.entries(declared.stores ?? {}).map(([name, options]) => [name, stores.declare(kebab(name), options)]);
    this.metrics = metrics.declared(declared.metrics ?? {});
  }

  /** Its context and signature under a configuration. */
  configure(config, host) {
    const read = settings.parse(this.settings, config);
    const made = this.stores.map(([, store], number) => new stores.Store(number, store, host.state));
    const context = {
      settings: read,
      stores: Object.fromEntries(this.stores.map(([name], number) => [name, made[number]])),
      metrics: metrics.made(this.metrics),
    };
    if (this.declared.configure) {
      const state = this.declared.configure(read, context);
      if (state !== undefined) context.state = state;
    }
    const signature = this.signature();
    if (this.declared.signature) {
      this.declared.signature(new Changing(signature), read);
      this.check(signature);
    }
    return { context, signature, stores: made };
  }

  signature() {
    return {
      inputs: this.inputs.map(({ name, fields }) => ({ name, fields: fields.map(mapped) })),
      branches: this.branches.map(output.branch),
      stores: this.stores.map(([, { declared }]) => structuredClone(declared)),
      metrics: this.metrics.map((metric) => ({ ...metric })),
    };
  }

  /** Whether the code can work with a signature that the plugin changed. */
  check(signature) {
    const own = this.signature();
    for (const list of ['inputs', 'branches', 'stores']) {
      if (signature[list].length !== own[list].length) throw new DeclarationError(`signature added or took away ${list}, which the code has not`);
    }
    for (const list of ['inputs', 'branches']) {
      own[list].forEach((stream, at) => {
        const types = (fields) => fields.map(({ field }) => `${field.type}${field.optional}`).join();
        if (types(signature[list][at].fields) !== types(stream.fields)) {
          throw new DeclarationError(`signature changed the types of the fields of "${stream.name}", but the code did not`);
        }
      });
    }
  }
}

function inputs(kind, declared) {
  if (declared.input !== undefined && declared.inputs !== undefined) throw new DeclarationError('there are `input` and `inputs`: a plugin has one of them');
  const entries = declared.inputs ? Object.entries(declared.inputs) : [['input', declared.input ?? {}]];
  if (declared.input === undefined && declared.inputs === undefined && kind === 'processor') {
    throw new DeclarationError('the plugin reads nothing: input: { amount: t.float() }, or input: {} for rows without fields');
  }
  return entries.map(([name, types]) => {
    const fields = fieldsOf(types, name === 'input' ? 'input' : `inputs.${name}`);
    return { name, fields, make: rowMaker(fields) };
  });
}

/** `seenRides` as `seen-rides`. */
const kebab = (name) => name.replaceAll('_', '-').replace(/([a-z0-9])([A-Z])/g, '$1-$2').toLowerCase();

/** A signature that the plugin's `signature` changes. */
class Changing {
  #signature;
  constructor(signature) {
    this.#signature = signature;
  }
  input(name = 'input') {
    return new Stream(named(this.#signature.inputs, name, 'input'));
  }
  branch(name) {
    return new Stream(named(this.#signature.branches, name, 'branch'));
  }
  store(name) {
    return named(this.#signature.stores, name, 'store');
  }
}

class Stream {
  #stream;
  constructor(stream) {
    this.#stream = stream;
  }
  get name() {
    return this.#stream.name;
  }
  field(name) {
    const found = this.#stream.fields.find(({ field }) => field.name === name);
    if (!found) {
      const known = this.#stream.fields.map(({ field }) => field.name).join(', ') || 'none';
      throw new DeclarationError(`there is no field "${name}" of "${this.name}": there are ${known}`);
    }
    return {
      get place() {
        return found.place;
      },
      set place(place) {
        found.place = typeof place === 'string' ? value(place) : place;
        if (typeof found.place?.tag !== 'string') throw new DeclarationError(`the place of "${name}" is ${shown(place)}: write value("/path")`);
      },
    };
  }
}

function named(items, name, what) {
  const found = items.find((item) => item.name === name);
  if (found) return found;
  throw new DeclarationError(`there is no ${what} named "${name}": there are ${items.map((item) => item.name).join(', ') || 'none'}`);
}
