// Columns: as they cross, and as JavaScript has them.

import { DeclarationError, Reject, described } from './errors.js';

const decoder = new TextDecoder('utf-8', { fatal: true });
const encoder = new TextEncoder();
const NONE = new Uint8Array(0);
const SAFE = Number.MAX_SAFE_INTEGER;
const INTEGER_MAX = (1n << 63n) - 1n;
const INTEGER_MIN = -(1n << 63n);

/** The bytes as another typed array; they may lie anywhere. */
function cast(bytes, Type) {
  const at = bytes.byteOffset % Type.BYTES_PER_ELEMENT === 0 ? bytes : bytes.slice();
  return new Type(at.buffer, at.byteOffset, at.byteLength / Type.BYTES_PER_ELEMENT);
}

/** The cells of a column: a typed array or an array; an array where a cell is null. Rows whose integer is no safe number
 * are named in `unsafe`, with why. */
export function read(field, column, rows, unsafe) {
  const { of } = field;
  let cells = plain(field, column, rows, unsafe);
  if (cells.length !== rows) throw new Error(`the column "${field.name}" has ${cells.length} cells for ${rows} rows`);
  if (column.nulls.length === 0) return cells;
  if (of.type === 'boolean' || !Array.isArray(cells)) cells = Array.from(cells);
  const { nulls } = column;
  for (let row = 0; row < rows; row++) if (nulls[row] === 1) cells[row] = null;
  return cells;
}

function plain(field, column, rows, unsafe) {
  switch (field.of.type) {
    case 'boolean': {
      const cells = new Array(rows);
      for (let row = 0; row < rows; row++) cells[row] = column.data[row] === 1;
      return cells;
    }
    case 'float':
      return cast(column.data, Float64Array);
    case 'integer':
    case 'time':
      return field.of.bigint ? cast(column.data, BigInt64Array) : numbers(field, column, rows, unsafe);
    case 'bytes':
      return pieces(column, rows, (start, end) => column.data.slice(start, end));
    case 'text':
      return texts(column, rows);
    default: {
      const cells = texts(column, rows);
      if (field.of.asText) return cells;
      const { nulls } = column;
      for (let row = 0; row < rows; row++) if (nulls[row] !== 1) cells[row] = JSON.parse(cells[row]);
      return cells;
    }
  }
}

function numbers(field, column, rows, unsafe) {
  const halves = cast(column.data, Int32Array);
  const cells = new Array(halves.length >> 1);
  for (let row = 0, at = 0; at < halves.length; row++, at += 2) {
    const number = halves[at + 1] * 4294967296 + (halves[at] >>> 0);
    if ((number > SAFE || number < -SAFE) && unsafe && column.nulls[row] !== 1 && !unsafe.has(row)) {
      const exact = cast(column.data, BigInt64Array)[row];
      unsafe.set(row, `\`${field.name}\` is ${exact}, which is no safe integer: declare it with { bigint: true }`);
    }
    cells[row] = number;
  }
  return cells;
}

function texts(column, rows) {
  const { data } = column;
  return pieces(column, rows, (start, end) => decoder.decode(data.subarray(start, end)));
}

function pieces(column, rows, piece) {
  const ends = cast(column.ends, Uint32Array);
  const cells = new Array(ends.length);
  for (let row = 0, start = 0; row < ends.length; row++) {
    const end = ends[row];
    cells[row] = piece(start, end);
    start = end;
  }
  return cells;
}

const WORDS = {
  boolean: 'a boolean',
  integer: 'an integer',
  float: 'a number',
  text: 'a string',
  bytes: 'a Uint8Array',
  time: 'an integer of milliseconds',
  json: 'what JSON can hold',
};

/** Why a value is no cell of a field. */
export function refuse(field, cell) {
  if (cell === null || cell === undefined) {
    throw new TypeError(`\`${field.name}\` is ${cell}, but is not declared { optional: true }`);
  }
  if (typeof cell === 'bigint') throw new RangeError(`\`${field.name}\` is ${cell}n, which has no room in 64 bits`);
  throw new TypeError(`\`${field.name}\` must be ${WORDS[field.of.type]}, but is ${described(cell)}`);
}

/** Why JSON cannot be made of a value. */
function json(field, cell) {
  let text;
  try {
    text = JSON.stringify(cell);
  } catch (error) {
    throw new TypeError(`\`${field.name}\` cannot be written as JSON: ${error.message}`);
  }
  if (text === undefined || text === 'null') refuse(field, cell);
  return text;
}

/** A column that is being written. What is no cell of the field is refused by `push`. */
export class Cells {
  constructor(field, capacity) {
    this.field = field;
    this.length = 0;
    this.nulls = undefined;
    this.list = undefined;
    const wide = { float: Float64Array, integer: BigInt64Array, time: BigInt64Array, boolean: Uint8Array }[field.of.type];
    if (wide) {
      this.list = new wide(Math.max(capacity, 8));
      if (wide === BigInt64Array) this.halves = new Int32Array(this.list.buffer);
    } else {
      this.list = [];
    }
    this.push = { float, integer, time: integer, boolean, text, bytes, json: field.of.asText ? text : parsed }[field.of.type];
  }

  /** Another call begins. */
  begin(keptMax, capacity) {
    this.nulls = undefined;
    this.length = 0;
    if (Array.isArray(this.list)) this.list = [];
    else if (this.list.length > keptMax) {
      this.list = new this.list.constructor(capacity);
      if (this.halves) this.halves = new Int32Array(this.list.buffer);
    }
  }

  grow() {
    const list = new this.list.constructor(this.list.length * 2);
    list.set(this.list);
    this.list = list;
    if (this.halves) this.halves = new Int32Array(list.buffer);
  }

  null(cell) {
    if (!this.field.of.optional) refuse(this.field, cell);
    this.nulls ??= new Array(this.length).fill(0);
    while (this.nulls.length < this.length) this.nulls.push(0);
    this.nulls[this.length] = 1;
    if (Array.isArray(this.list)) this.list[this.length++] = this.field.of.type === 'bytes' ? NONE : '';
    else {
      if (this.length === this.list.length) this.grow();
      this.list[this.length++] = this.halves ? 0n : 0;
    }
  }

  /** Takes the cells from this one on out again. */
  cut(length) {
    this.length = length;
    if (Array.isArray(this.list)) this.list.length = length;
    if (this.nulls && this.nulls.length > length) this.nulls.length = length;
  }

  column() {
    const { length } = this;
    let nulls = NONE;
    if (this.nulls?.includes(1)) {
      nulls = new Uint8Array(length);
      nulls.set(this.nulls);
    }
    if (!Array.isArray(this.list)) {
      return { nulls, ends: NONE, data: new Uint8Array(this.list.buffer, 0, length * this.list.BYTES_PER_ELEMENT) };
    }
    return this.field.of.type === 'bytes' ? joined(this.list, nulls) : encoded(this.field, this.list, nulls);
  }
}

function float(cell) {
  if (typeof cell !== 'number') return cell === null || cell === undefined ? this.null(cell) : refuse(this.field, cell);
  if (this.length === this.list.length) this.grow();
  this.list[this.length++] = cell;
}

function integer(cell) {
  if (this.length === this.list.length) this.grow();
  if (typeof cell === 'number') {
    if (!Number.isSafeInteger(cell)) refuse(this.field, cell);
    const at = this.length++ * 2;
    this.halves[at] = cell | 0;
    this.halves[at + 1] = Math.floor(cell / 4294967296);
  } else if (typeof cell === 'bigint') {
    if (cell > INTEGER_MAX || cell < INTEGER_MIN) refuse(this.field, cell);
    this.list[this.length++] = cell;
  } else if (cell === null || cell === undefined) this.null(cell);
  else refuse(this.field, cell);
}

function boolean(cell) {
  if (typeof cell !== 'boolean') return cell === null || cell === undefined ? this.null(cell) : refuse(this.field, cell);
  if (this.length === this.list.length) this.grow();
  this.list[this.length++] = cell ? 1 : 0;
}

function text(cell) {
  if (typeof cell !== 'string') return cell === null || cell === undefined ? this.null(cell) : refuse(this.field, cell);
  this.list[this.length++] = cell;
}

function bytes(cell) {
  if (!(cell instanceof Uint8Array)) return cell === null || cell === undefined ? this.null(cell) : refuse(this.field, cell);
  this.list[this.length++] = cell;
}

function parsed(cell) {
  if (cell === null || cell === undefined) return this.null(cell);
  this.list[this.length++] = json(this.field, cell);
}

function encoded(field, list, nulls) {
  const whole = list.join('');
  const data = encoder.encode(whole);
  if (data.length !== whole.length) {
    if (!whole.isWellFormed()) {
      const cell = list.find((text) => !text.isWellFormed());
      throw new Reject(`\`${field.name}\` is ${described(cell)}, which is not Unicode text: it has half of a surrogate pair`);
    }
    return joined(list.map((text) => encoder.encode(text)), nulls);
  }
  const ends = new Uint32Array(list.length);
  for (let row = 0, end = 0; row < list.length; row++) ends[row] = end += list[row].length;
  return { nulls, ends: new Uint8Array(ends.buffer), data };
}

function joined(list, nulls) {
  const ends = new Uint32Array(list.length);
  let end = 0;
  for (let row = 0; row < list.length; row++) ends[row] = end += list[row].length;
  const data = new Uint8Array(end);
  for (let row = 0; row < list.length; row++) data.set(list[row], row === 0 ? 0 : ends[row - 1]);
  return { nulls, ends: new Uint8Array(ends.buffer), data };
}

/** The column of a whole list of cells; a typed array of the field's own kind is taken as it is. */
export function write(field, cells) {
  const own = { float: Float64Array, integer: BigInt64Array, time: BigInt64Array }[field.of.type];
  if (own && cells instanceof own) return { nulls: NONE, ends: NONE, data: new Uint8Array(cells.buffer, cells.byteOffset, cells.byteLength) };
  const written = new Cells(field, cells.length);
  for (const cell of cells) written.push(cell);
  return written.column();
}

/** A table of rows: objects with the fields, or the cells themselves where there is one field that stands alone. */
export function table(shape, items) {
  const columns = shape.fields.map((field) => {
    const cells = new Cells(field, items.length);
    if (shape.alone) for (const item of items) cells.push(item);
    else for (const item of items) cells.push(item[field.name]);
    return cells.column();
  });
  return { rows: items.length, columns };
}

/** A function that makes a row of the columns, by its number: an object with the fields in their order. */
export function rowMaker(fields) {
  const members = fields.map((field, at) => `${JSON.stringify(field.name)}: c${at}[row]`).join(', ');
  const names = fields.map((_, at) => `c${at}`);
  const names_ = names.join(', ');
  try {
    return new Function('columns', `const [${names_}] = columns; return (row) => ({ ${members} });`);
  } catch (error) {
    throw new DeclarationError(`these fields make no object: ${error.message}`);
  }
}
