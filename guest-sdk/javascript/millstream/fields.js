// Fields: what a plugin reads, emits and keeps.

import { DeclarationError, shown } from './errors.js';

/** Where in a record a field lies. */
const place = (tag, val) => (val === undefined ? { tag } : { tag, val });

/** In the value: a JSON Pointer, "" for the whole of it. */
export const value = (path) => place('value', pointer(path));
/** In the key, or the whole key. */
export const key = (path = '') => place('key', pointer(path));
/** The last header of this name: a text or bytes. */
export const header = (name) => place('header', name);
/** The value's bytes as they stand, null for a tombstone. */
export const rawValue = place('raw-value');
/** The key's bytes, null for a record without a key. */
export const rawKey = place('raw-key');
/** The record's timestamp, a time. */
export const timestamp = place('timestamp');
/** The record's offset in its partition, an integer. */
export const offset = place('offset');
/** Whether the value is null, a boolean. */
export const tombstone = place('tombstone');

const PLACE_TYPES = {
  header: ['text', 'bytes'],
  'raw-value': ['bytes'],
  'raw-key': ['bytes'],
  timestamp: ['time'],
  offset: ['integer'],
  tombstone: ['boolean'],
};

export function pointer(path) {
  if (typeof path !== 'string') throw new DeclarationError(`a path is a text such as "/total_amount", but this one is ${shown(path)}`);
  if (path !== '' && !path.startsWith('/')) {
    throw new DeclarationError(`a path is a JSON Pointer and begins with a slash: "/${path.replaceAll('.', '/')}"`);
  }
  if (path.split('~').slice(1).some((rest) => !/^[01]/.test(rest))) {
    throw new DeclarationError(`in the path ${shown(path)} "~" is written "~0", and "/" in a name "~1"`);
  }
  return path;
}

/** A type of a field: what its cells are, and where they lie. */
export class FieldType {
  constructor(type, options = {}) {
    const known = ['at', 'optional', 'bigint', 'asText', 'was', 'added'];
    for (const name of Object.keys(options)) {
      if (!known.includes(name)) throw new DeclarationError(`t.${type} has no option ${shown(name)}: there are ${known.join(', ')}`);
    }
    this.type = type;
    this.optional = options.optional ?? false;
    this.bigint = options.bigint ?? false;
    this.asText = options.asText ?? false;
    this.at = typeof options.at === 'string' ? value(options.at) : options.at;
    if ('was' in options && 'added' in options) throw new DeclarationError('a field has been named otherwise (`was`) or is new (`added`), not both');
    this.carried = 'was' in options ? { tag: 'same', val: options.was } : undefined;
    if ('added' in options) this.carried = { tag: 'constant', val: JSON.stringify(options.added) };
  }
}

const type = (name) => (options) => new FieldType(name, options);

/** The types of fields. `{ at }` says where a field lies, as a path in the value or a place; `{ optional: true }` lets it be
 * null. Integers and times are numbers, and a row with a greater one than 2^53 fails; with `{ bigint: true }` they are BigInts. */
export const t = {
  boolean: type('boolean'),
  integer: type('integer'),
  float: type('float'),
  text: type('text'),
  bytes: type('bytes'),
  time: type('time'),
  json: type('json'),
};

/** The fields of an object of types. */
export function fieldsOf(types, where) {
  if (types === null || typeof types !== 'object' || types instanceof FieldType) {
    throw new DeclarationError(`${where} is an object of types, as { amount: t.float() }`);
  }
  return Object.entries(types).map(([name, of]) => {
    if (!(of instanceof FieldType)) {
      throw new DeclarationError(`${where}.${name} is ${shown(of)}: a field has a type, as t.float()`);
    }
    const at = of.at ?? place('value', `/${name.replaceAll('~', '~0').replaceAll('/', '~1')}`);
    const allowed = PLACE_TYPES[at.tag];
    if (allowed && !allowed.includes(of.type)) {
      throw new DeclarationError(`${where}.${name} is of type ${of.type}, but ${at.tag} holds ${allowed.join(' or ')}`);
    }
    return { name, of, at };
  });
}

/** As the contract has a field. */
export const bare = ({ name, of }) => ({ name, type: of.type, optional: of.optional });
/** As the contract has a field with its place. */
export const mapped = (field) => ({ field: bare(field), place: field.at });
/** Where a field of a store comes from in rows of an earlier version. */
export const carried = ({ name, of }) => of.carried ?? { tag: 'same', val: name };
