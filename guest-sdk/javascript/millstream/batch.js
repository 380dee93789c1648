// The rows of a call.

import * as columns from './columns.js';

/** The rows of a call, by columns: each field is a member. */
export class Batch {
  #input;
  #table;
  #unsafe = new Map();

  constructor(input, table) {
    this.#input = input;
    this.#table = table;
    this.length = table.rows;
    this.input = input.name;
    for (const [at, field] of input.fields.entries()) this.#lazy(field, table.columns[at]);
  }

  #lazy(field, column) {
    let cells;
    Object.defineProperty(this, field.name, {
      enumerable: true,
      get: () => {
        if (cells === undefined) {
          cells = columns.read(field, column, this.length, this.#unsafe);
          for (const [, message] of this.#unsafe) throw new RangeError(message);
        }
        return cells;
      },
    });
  }

  /** A column as it crossed: `nulls`, `ends` and `data`, bytes each. */
  raw(name) {
    const at = this.#input.fields.findIndex((field) => field.name === name);
    if (at < 0) throw new TypeError(`the input "${this.input}" has no field "${name}"`);
    return this.#table.columns[at];
  }
}

/** A function that makes a row by its number, and why rows cannot be made, by their numbers. */
export function rows(input, table) {
  const unsafe = new Map();
  const cells = input.fields.map((field, at) => columns.read(field, table.columns[at], table.rows, unsafe));
  return { row: input.make(cells), unsafe };
}
