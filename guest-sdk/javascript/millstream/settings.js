// What a pipeline may set: read from JSON with all mistakes at once, and described by a JSON Schema.

import { DeclarationError, Reject, shown } from './errors.js';

const UNITS_MS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** The milliseconds of a duration such as "30s"; undefined if it is none. */
export function milliseconds(text) {
  const found = /^([0-9]+) ?(ms|s|m|h|d)$/.exec(text);
  return found ? Number(found[1]) * UNITS_MS[found[2]] : undefined;
}

const WRONG = Symbol('wrong');

class Setting {
  constructor(schema, read, options = {}) {
    for (const name of Object.keys(options)) {
      if (!['default', 'doc', 'optional'].includes(name)) {
        throw new DeclarationError(`a setting has no option ${shown(name)}: there are default, doc, optional`);
      }
    }
    this.schema = options.optional ? { anyOf: [schema, { type: 'null' }] } : schema;
    this.readValue = read;
    this.options = options;
  }

  read(value, at, problems) {
    return value === null && this.options.optional ? null : this.readValue(value, at, problems);
  }
}

function expected(what, found, at, problems) {
  let text = JSON.stringify(found);
  if (text.length > 60) text = `${text.slice(0, 57)}...`;
  problems.push(problem(at, `must be ${what}, but is ${text}`));
  return WRONG;
}

const problem = (at, text) => (at ? `\`${at}\` ${text}` : `the configuration ${text}`);

function unknown(what, name, names) {
  const near = names.map((known) => [distance(known, name), known]).sort((a, b) => a[0] - b[0])[0];
  if (near && near[0] <= 1 + Math.floor(name.length / 4)) return `${what}: did you mean \`${near[1]}\`?`;
  return names.length ? `${what}: there are ${names.join(', ')}` : `${what}: there are none`;
}

/** Letters to put in, take out or replace. */
function distance(one, other) {
  let before = Array.from({ length: other.length + 1 }, (_, at) => at);
  for (let i = 1; i <= one.length; i++) {
    const now = [i];
    for (let j = 1; j <= other.length; j++) {
      now[j] = Math.min(now[j - 1] + 1, before[j] + 1, before[j - 1] + (one[i - 1] === other[j - 1] ? 0 : 1));
    }
    before = now;
  }
  return before[other.length];
}

function simple(schema, what, is, convert = (value) => value) {
  return (options) =>
    new Setting(schema, (value, at, problems) => (is(value) ? convert(value) : expected(what, value, at, problems)), options);
}

const isPointer = (value) =>
  typeof value === 'string' && (value === '' || value.startsWith('/')) && value.split('~').slice(1).every((rest) => /^[01]/.test(rest));

function all(entries, of, problems) {
  const read = entries.map(([name, value, at]) => [name, of.read(value, at, problems)]);
  return read.some(([, value]) => value === WRONG) ? WRONG : read;
}

/** The types of settings. `{ default }` is what one is that is left out, `{ doc }` describes it, `{ optional: true }` lets it be
 * null. */
export const s = {
  boolean: simple({ type: 'boolean' }, 'true or false', (value) => typeof value === 'boolean'),
  integer: simple(
    { type: 'integer', minimum: Number.MIN_SAFE_INTEGER, maximum: Number.MAX_SAFE_INTEGER },
    `an integer from ${Number.MIN_SAFE_INTEGER} to ${Number.MAX_SAFE_INTEGER}`,
    (value) => Number.isSafeInteger(value),
  ),
  float: simple({ type: 'number' }, 'a number', (value) => typeof value === 'number'),
  text: simple({ type: 'string' }, 'a text', (value) => typeof value === 'string'),
  pointer: simple({ type: 'string', format: 'json-pointer' }, 'a path such as "/total_amount" (a JSON Pointer)', isPointer),
  duration: simple(
    { type: 'string', pattern: '^[0-9]+ ?(ms|s|m|h|d)$' },
    'a duration such as "30s" or "1h" (ms, s, m, h or d)',
    (value) => typeof value === 'string' && milliseconds(value) !== undefined,
    milliseconds,
  ),
  any: simple({}, 'anything', () => true),
  choice: (names, options) =>
    new Setting(
      { type: 'string', enum: names },
      (value, at, problems) => {
        if (typeof value !== 'string') return expected(`one of ${names.join(', ')}`, value, at, problems);
        if (names.includes(value)) return value;
        problems.push(problem(at, unknown(`cannot be ${JSON.stringify(value)}`, value, names)));
        return WRONG;
      },
      options,
    ),
  list: (of, options) =>
    new Setting(
      { type: 'array', items: of.schema },
      (value, at, problems) => {
        if (!Array.isArray(value)) return expected('a list', value, at, problems);
        const read = all(value.map((item, index) => [index, item, `${at}.${index}`]), of, problems);
        return read === WRONG ? WRONG : read.map(([, item]) => item);
      },
      options,
    ),
  map: (of, options) =>
    new Setting(
      { type: 'object', additionalProperties: of.schema },
      (value, at, problems) => {
        if (!isObject(value)) return expected('an object', value, at, problems);
        const read = all(Object.entries(value).map(([name, item]) => [name, item, `${at}.${name}`]), of, problems);
        return read === WRONG ? WRONG : Object.fromEntries(read);
      },
      options,
    ),
  object: (members, options) => new Setting(objectSchema(members), (value, at, problems) => readObject(members, value, at, problems), options),
};

const isObject = (value) => value !== null && typeof value === 'object' && !Array.isArray(value);

function objectSchema(members) {
  const properties = {};
  const required = [];
  for (const [name, of] of Object.entries(members)) {
    if (!(of instanceof Setting)) throw new DeclarationError(`settings.${name} is ${shown(of)}: a setting has a type, as s.float()`);
    properties[name] = { ...of.schema };
    if (of.options.doc) properties[name].description = of.options.doc;
    if (['boolean', 'number', 'string'].includes(typeof of.options.default)) properties[name].default = of.options.default;
    if (!('default' in of.options) && !of.options.optional) required.push(name);
  }
  return { type: 'object', properties, additionalProperties: false, ...(required.length ? { required } : {}) };
}

function readObject(members, value, at, problems) {
  if (!isObject(value)) return expected('an object', value, at, problems);
  const names = Object.keys(members);
  const path = at ? `${at}.` : '';
  const read = {};
  let wrong = false;
  for (const name of Object.keys(value)) {
    if (!names.includes(name)) problems.push(problem(path + name, unknown('is not a setting', name, names)));
  }
  for (const [name, of] of Object.entries(members)) {
    if (Object.hasOwn(value, name)) read[name] = of.read(value[name], path + name, problems);
    // A default stands as in the file.
    else if ('default' in of.options) read[name] = of.read(of.options.default, path + name, problems);
    else if (of.options.optional) read[name] = null;
    else {
      problems.push(problem(path + name, 'is missing'));
      wrong = true;
    }
    wrong ||= read[name] === WRONG;
  }
  return wrong ? WRONG : read;
}

/** The JSON Schema of a configuration; empty if there is nothing to configure. */
export function schemaText(members) {
  const schema = objectSchema(members);
  if (Object.keys(members).length === 0) return '';
  return JSON.stringify({ ...schema, $schema: 'https://json-schema.org/draft/2020-12/schema' });
}

/** Reads a configuration. Throws a `Reject` with everything that is wrong with it. */
export function parse(members, text) {
  let value;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Reject(`the configuration is not JSON: ${error.message}`);
  }
  const problems = [];
  const read = readObject(members, value, '', problems);
  if (problems.length) throw new Reject(problems.join('; '));
  return read;
}
