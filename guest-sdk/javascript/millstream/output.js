// What a call emits.

import * as columns from './columns.js';
import { DeclarationError, described, told } from './errors.js';
import { fieldsOf, mapped } from './fields.js';

/** What a plugin declares of its branches, taken apart. */
export function declare(branches) {
  if (branches === undefined || Object.keys(branches).length === 0) {
    throw new DeclarationError('the plugin has no branch: branches: { out: {} }');
  }
  return Object.entries(branches).map(([name, options]) => {
    for (const option of Object.keys(options)) {
      if (!['value', 'fields'].includes(option)) {
        throw new DeclarationError(`branches.${name} has no option "${option}": there are value, fields`);
      }
    }
    const { value = 'same', fields = {} } = options;
    if (value !== 'same' && value !== 'new') throw new DeclarationError(`branches.${name}.value is "same" or "new"`);
    return { name, value, fields: fieldsOf(fields, `branches.${name}.fields`) };
  });
}

/** As the contract has a branch. */
export const branch = ({ name, value, fields }) => ({ name, value, fields: fields.map(mapped) });

/** Rows of a call that a branch keeps room for: what a greater one took is given back. */
const KEPT_ROWS_MAX = 1 << 14;
const FIRST_ROWS = 1024;

/** Rows for one branch; used again in each call. */
class Emission {
  constructor(declared) {
    this.declared = declared;
    this.unchecked = true;
    this.cells = declared.fields.map((field) => new columns.Cells(field, FIRST_ROWS));
    this.begin();
  }

  begin() {
    if (this.origins === undefined || this.origins.length > KEPT_ROWS_MAX) this.origins = new Uint32Array(FIRST_ROWS);
    this.length = 0;
    this.whole = undefined;
    for (const cells of this.cells) cells.begin(KEPT_ROWS_MAX, FIRST_ROWS);
  }

  next(origin) {
    if (this.length === this.origins.length) {
      const origins = new Uint32Array(this.length * 2);
      origins.set(this.origins);
      this.origins = origins;
    }
    this.origins[this.length++] = origin;
  }

  /** Takes back the rows of the origin that is emitted now. */
  remove(origin) {
    while (this.length > 0 && this.origins[this.length - 1] === origin) this.length--;
    this.restore();
  }

  /** A row whose cells were refused half-way has left some of them. */
  restore() {
    for (const cells of this.cells) if (cells.length > this.length) cells.cut(this.length);
  }

  /** Says why a row is none of this branch, if that can be said of the whole of it. */
  look(row) {
    this.restore();
    const { name, fields } = this.declared;
    if (row === null || typeof row !== 'object') {
      throw new TypeError(`the branch "${name}" was given ${described(row)}: it takes an object with its fields`);
    }
    const known = fields.map((field) => field.name);
    const other = Object.keys(row).find((member) => !known.includes(member));
    if (other !== undefined) throw new TypeError(`the branch "${name}" has no field "${other}": there are ${known.join(', ')}`);
  }

  emitted() {
    if (this.whole) return this.whole;
    return {
      origins: new Uint8Array(this.origins.buffer, 0, this.length * 4),
      columns: this.cells.map((cells) => cells.column()),
    };
  }
}

/** Takes what calls emit: `by` has a function for each branch. */
export class Output {
  constructor(branches) {
    this.row = 0;
    this.rows = 0;
    this.emissions = branches.map((declared) => new Emission(declared));
    this.failed = new Map();
    this.by = {};
    for (const emission of this.emissions) this.by[emission.declared.name] = emitter(this, emission);
  }

  begin(rows) {
    this.rows = rows;
    this.failed.clear();
    for (const emission of this.emissions) emission.begin();
  }

  /** Rows for a branch, by columns, once in a call: origins do not descend. */
  emit(name, origins, cells = {}) {
    const emission = this.emissions.find(({ declared }) => declared.name === name);
    if (!emission) throw new TypeError(`there is no branch "${name}": there are ${this.emissions.map((e) => e.declared.name).join(', ')}`);
    if (emission.whole) throw new TypeError(`rows of the branch "${name}" were emitted already: once in a call`);
    const { fields } = emission.declared;
    const names = fields.map((field) => field.name);
    if (Object.keys(cells).sort().join() !== [...names].sort().join()) {
      throw new TypeError(`the branch "${name}" has the fields ${names.join(', ')}, but ${Object.keys(cells).join(', ') || 'none'} were emitted`);
    }
    const packed = origins instanceof Uint32Array ? origins : Uint32Array.from(origins);
    for (let at = 0, before = 0; at < packed.length; at++) {
      const origin = packed[at];
      if (origin < before) throw new RangeError(`origins of the branch "${name}" descend: ${origin} follows ${before}`);
      if (origin >= this.rows) throw new RangeError(`there is no row ${origin}: the call has ${this.rows} rows`);
      before = origin;
    }
    emission.whole = {
      origins: new Uint8Array(packed.buffer, packed.byteOffset, packed.byteLength),
      columns: fields.map((field) => {
        if (cells[field.name].length !== packed.length) {
          throw new RangeError(`\`${field.name}\` has ${cells[field.name].length} cells for ${packed.length} rows`);
        }
        return columns.write(field, cells[field.name]);
      }),
    };
  }

  fail(row, error) {
    for (const emission of this.emissions) emission.remove(row);
    if (!this.failed.has(row)) this.failed.set(row, typeof error === 'string' ? error : told(error));
  }

  finish() {
    return {
      branches: this.emissions.map((emission) => emission.emitted()),
      failed: [...this.failed].sort(([one], [other]) => one - other).map(([row, message]) => ({ row, message })),
    };
  }
}

/** The function that emits a row of a branch. */
function emitter(out, emission) {
  const { cells, declared } = emission;
  if (cells.length === 0) return () => emission.next(out.row);
  return makeEmitter(declared.fields)(out, emission, cells);
}

function makeEmitter(fields) {
  const pushes = fields.map((field, at) => `c${at}.push(row[${JSON.stringify(field.name)}]);`).join(' ');
  const names = fields.map((_, at) => `c${at}`).join(', ');
  return new Function('out', 'emission', 'cells', `
    const [${names}] = cells;
    return (row) => {
      if (emission.unchecked) { emission.look(row); emission.unchecked = false; }
      try { ${pushes} } catch (error) { emission.look(row); throw error; }
      emission.next(out.row);
    };`);
}
