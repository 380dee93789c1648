// Stores: maps that outlive a call. The host keeps them, one for each partition.

import * as columns from './columns.js';
import { DeclarationError, shown } from './errors.js';
import { FieldType, bare, carried, fieldsOf } from './fields.js';
import { milliseconds } from './settings.js';

/** Keys that are asked for in one call of the host: what they and their values take must fit into memory twice. */
const KEYS_OF_CALL_MAX = 1 << 14;
/** Rows of the first page of a scan; each page is twice the one before. */
const FIRST_PAGE_ROWS = 64;
const PAGE_ROWS_MAX = 4096;

const ABSENT = Symbol('absent');

/** What keys, values and accumulators are: a type that stands alone, or an object of types. */
export class Shape {
  constructor(types, name, where) {
    this.alone = types instanceof FieldType;
    this.fields = this.alone ? fieldsOf({ [name]: types }, where) : fieldsOf(types ?? {}, where);
    this.make = this.alone ? undefined : columns.rowMaker(this.fields);
    /** Whether what it holds can be changed in place. */
    this.mutable = !this.alone || (this.fields[0].of.type === 'json' && !this.fields[0].of.asText);
    this.deep = this.fields.some((field) => field.of.type === 'json' && !field.of.asText);
    this.bytes = this.fields.filter((field) => field.of.type === 'bytes').map((field) => field.name);
  }

  table(items) {
    return columns.table(this, items);
  }

  read(table) {
    const unsafe = new Map();
    const cells = this.fields.map((field, at) => columns.read(field, table.columns[at], table.rows, unsafe));
    for (const [, message] of unsafe) throw new RangeError(message);
    if (this.alone) return cells[0];
    const row = this.make(cells);
    return Array.from({ length: table.rows }, (_, at) => row(at));
  }

  /** What may be given away, or kept: what is kept is not to be changed unseen. */
  copy(item) {
    if (!this.mutable || item === null || typeof item !== 'object') return item;
    return this.deep ? structuredClone(item) : { ...item };
  }

  /** What tells two items apart in a Map. */
  id(item) {
    if (this.alone) return this.bytes.length ? String(item) : item;
    return this.fields.map((field) => `${String(item[field.name]).length}:${item[field.name]}`).join('');
  }

  cells(item) {
    return this.alone ? [item] : this.fields.map((field) => item[field.name]);
  }
}

/** What a plugin declares of a store, taken apart. */
export function declare(name, options) {
  const where = `stores.${name}`;
  for (const option of Object.keys(options)) {
    if (!['key', 'value', 'ordered', 'timeToLive'].includes(option)) {
      throw new DeclarationError(`${where} has no option ${shown(option)}: there are key, value, ordered, timeToLive`);
    }
  }
  const key = new Shape(options.key, 'key', `${where}.key`);
  const value = new Shape(options.value, 'value', `${where}.value`);
  if (key.fields.length === 0) throw new DeclarationError(`${where}.key has a field at least`);
  for (const { name: field, of } of key.fields) {
    if (of.optional || of.type === 'float' || (of.type === 'json' && !of.asText)) {
      throw new DeclarationError(`${where}.key: ${field} cannot be in a key: it is optional, a float or parsed JSON`);
    }
  }
  const lives = options.timeToLive === undefined ? 0 : milliseconds(options.timeToLive);
  if (lives === undefined) throw new DeclarationError(`${where}.timeToLive is a duration such as "24h", not ${shown(options.timeToLive)}`);
  const declared = {
    name,
    key: key.fields.map(bare),
    value: value.fields.map(bare),
    ordered: options.ordered ?? false,
    timeToLive: BigInt(lives),
    carryOver: value.fields.map(carried),
  };
  return { declared, key, value };
}

/** A map that outlives the call. What is asked for is fetched from the host and kept until the call ends; what was set is
 * written once, when the call has succeeded. A row that fails leaves no change. An object that `get` gives is a copy: set it. */
export class Store {
  #number;
  #key;
  #value;
  #name;
  #ordered;
  #host;
  /** By id: the key, its value or ABSENT; undefined before it was fetched. */
  #rows = new Map();
  #undo = new Map();
  #wanted = [];

  constructor(number, { declared, key, value }, host) {
    this.#number = number;
    this.#key = key;
    this.#value = value;
    this.#name = declared.name;
    this.#ordered = declared.ordered;
    this.#host = host;
  }

  /** The value of a key, or undefined. */
  get(key) {
    const found = this.#find(key);
    return found === ABSENT ? undefined : this.#value.copy(found);
  }

  /** Whether there is a value for a key. */
  has(key) {
    return this.#find(key) !== ABSENT;
  }

  /** Sets the value of a key; `null` or nothing in a store without values. What was there is not fetched for it. */
  set(key, value) {
    this.#set(key, this.#value.copy(value));
  }

  /** Takes a key out. What was there is not fetched for it. */
  delete(key) {
    this.#set(key, ABSENT);
  }

  /** Says that these keys will be asked for: they are fetched at once, when the first is. */
  prefetch(keys) {
    for (const key of keys) this.#wanted.push(key);
  }

  #find(key) {
    const id = this.#key.id(key);
    let row = this.#rows.get(id);
    if (row === undefined) {
      this.#wanted.push(key);
      this.#fetch();
      row = this.#rows.get(id);
    }
    return row.value;
  }

  #set(key, value) {
    const id = this.#key.id(key);
    const row = this.#rows.get(id);
    if (!this.#undo.has(id)) this.#undo.set(id, row && { ...row });
    if (row) {
      row.value = value;
      row.changed = true;
    } else this.#rows.set(id, { key: this.#key.copy(key), value, changed: true });
  }

  #fetch() {
    const wanted = new Map();
    for (const key of this.#wanted) {
      const id = this.#key.id(key);
      if (!this.#rows.has(id)) wanted.set(id, key);
    }
    this.#wanted = [];
    const keys = [...wanted.values()];
    const ids = [...wanted.keys()];
    for (let start = 0; start < keys.length; start += KEYS_OF_CALL_MAX) {
      const some = keys.slice(start, start + KEYS_OF_CALL_MAX);
      const found = this.#host.get(this.#number, this.#keys(some));
      const values = this.#value.read(found.values);
      for (let at = 0; at < some.length; at++) {
        const value = found.absent.length && found.absent[at] === 1 ? ABSENT : values[at];
        this.#rows.set(ids[start + at], { key: some[at], value, changed: false });
      }
    }
  }

  #keys(keys) {
    try {
      return this.#key.table(keys);
    } catch (error) {
      throw new TypeError(`a key of the store "${this.#name}": ${error.message}`);
    }
  }

  /** The rows of an ordered store whose keys begin with these cells, in the order of the keys, as `[key, value]`. What the call
   * changed so far is seen. Rows are fetched as they are asked for. */
  *scan(...prefix) {
    if (!this.#ordered) throw new DeclarationError(`the store "${this.#name}" is not ordered: { ordered: true }`);
    const { fields } = this.#key;
    if (prefix.length > fields.length) throw new TypeError(`the keys of the store "${this.#name}" have ${fields.length} fields, not ${prefix.length}`);
    const fits = (key) => this.#key.cells(key).slice(0, prefix.length).every((cell, at) => compare(cell, prefix[at]) === 0);
    const order = (one, other) => compareAll(this.#key.cells(one), this.#key.cells(other));
    const own = [...this.#rows.values()].filter((row) => row.changed && fits(row.key)).sort((a, b) => order(a.key, b.key));
    const lent = (row) => [this.#key.copy(row.key), this.#value.copy(row.value)];
    const prefixTable = { rows: 1, columns: prefix.map((cell, at) => columns.write(fields[at], [cell])) };
    let after = [];
    let limit = FIRST_PAGE_ROWS;
    for (let complete = false; !complete; ) {
      const page = this.#host.scan(this.#number, prefixTable, this.#keys(after), limit);
      const keys = this.#key.read(page.keys);
      const values = this.#value.read(page.values);
      complete = page.complete;
      limit = Math.min(limit * 2, PAGE_ROWS_MAX);
      for (let at = 0; at < page.keys.rows; at++) {
        while (own.length && order(own[0].key, keys[at]) < 0) {
          const row = own.shift();
          if (row.value !== ABSENT) yield lent(row);
        }
        if (own.length && order(own[0].key, keys[at]) === 0) {
          const row = own.shift();
          if (row.value !== ABSENT) yield lent(row);
        } else yield [keys[at], values[at]];
      }
      if (page.keys.rows > 0) after = [keys[page.keys.rows - 1]];
    }
    for (const row of own) if (row.value !== ABSENT) yield lent(row);
  }

  /** For the SDK: another row begins. */
  nextRow() {
    if (this.#undo.size) this.#undo.clear();
  }

  /** For the SDK: takes back what the row changed. */
  undoRow() {
    for (const [id, row] of this.#undo) {
      if (row === undefined) this.#rows.delete(id);
      else this.#rows.set(id, row);
    }
    this.#undo.clear();
  }

  /** For the SDK: a call begins, or has failed. */
  forget() {
    this.#rows.clear();
    this.#undo.clear();
    this.#wanted = [];
  }

  /** For the SDK: writes what was changed. */
  flush() {
    const changed = [...this.#rows.values()].filter((row) => row.changed);
    const put = changed.filter((row) => row.value !== ABSENT);
    const gone = changed.filter((row) => row.value === ABSENT);
    for (let start = 0; start < put.length; start += KEYS_OF_CALL_MAX) {
      const some = put.slice(start, start + KEYS_OF_CALL_MAX);
      let values;
      try {
        values = this.#value.table(some.map((row) => row.value));
      } catch (error) {
        throw new TypeError(`a value of the store "${this.#name}": ${error.message}`);
      }
      this.#host.put(this.#number, this.#keys(some.map((row) => row.key)), values);
    }
    for (let start = 0; start < gone.length; start += KEYS_OF_CALL_MAX) {
      this.#host.delete(this.#number, this.#keys(gone.slice(start, start + KEYS_OF_CALL_MAX).map((row) => row.key)));
    }
    this.forget();
  }
}

function compareAll(one, other) {
  for (let at = 0; at < one.length; at++) {
    const order = compare(one[at], other[at]);
    if (order !== 0) return order;
  }
  return 0;
}

const encoder = new TextEncoder();

/** The order of the host: texts and bytes byte by byte. */
function compare(one, other) {
  if (typeof one === 'string') {
    if (one === other) return 0;
    return compare(encoder.encode(one), encoder.encode(other));
  }
  if (one instanceof Uint8Array) {
    const length = Math.min(one.length, other.length);
    for (let at = 0; at < length; at++) if (one[at] !== other[at]) return one[at] - other[at];
    return one.length - other.length;
  }
  return one < other ? -1 : one > other ? 1 : 0;
}
