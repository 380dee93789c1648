// Makes a component of a plugin: run by `millstream build` with one argument, JSON.
//
// The plugin's modules are copied into the work folder with the specifiers of their imports made relative, as the engine that
// runs them knows files alone; their lines stay where they are, so that stacks tell the truth.

import { copyFile, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createRequire, isBuiltin } from 'node:module';
import { dirname, extname, join, relative, resolve, sep } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const { tool, project, entry, sdk, wit, work, output, kind, name, version, summary } = JSON.parse(process.argv[2]);

class BuildError extends Error {}

const requireOfTool = createRequire(join(tool, 'package.json'));
const load = (specifier) => import(pathToFileURL(requireOfTool.resolve(specifier)));

const ABSENT = {
  fs: 'there are no files: import a module that holds the data, or pass it as a setting',
  net: 'there is no network', http: 'there is no network', https: 'there is no network', dgram: 'there is no network', dns: 'there is no network',
  child_process: 'there are no processes', worker_threads: 'there are no threads', cluster: 'there are no processes',
  crypto: 'there is no randomness, and nothing of Node', timers: 'a plugin cannot wait',
};

/** Copies a module and what it imports; each once. */
class Stage {
  places = new Map();

  constructor(lexer, parser) {
    this.lexer = lexer;
    this.parser = parser;
  }

  /** Where a module goes, relative to the work folder; its imports follow it. */
  async module(path, shown) {
    if (this.places.has(path)) return this.places.get(path);
    const inProject = relative(project, path);
    const place = inProject.startsWith('..') ? join('plugin', 'outside', path) : join('plugin', inProject);
    this.places.set(path, place);
    await mkdir(dirname(join(work, place)), { recursive: true });
    let text;
    try {
      text = await readFile(path, 'utf8');
    } catch (error) {
      throw new BuildError(`${shown}: ${error.code === 'ENOENT' ? 'there is no such file' : error.message}`);
    }
    if (extname(path) === '.json') {
      const script = `${place}.js`;
      this.places.set(path, script);
      await writeFile(join(work, script), `export default ${text};\n`);
      return script;
    }
    if (inProject && !path.includes(`${sep}node_modules${sep}`)) this.twice(path, text);
    await writeFile(join(work, place), await this.rewritten(path, place, text));
    return place;
  }

  async rewritten(path, place, text) {
    let imports;
    try {
      [imports] = this.lexer.parse(text);
    } catch (error) {
      // The engine says better what is wrong with it.
      return text;
    }
    let out = '';
    let at = 0;
    for (const { n: specifier, s: start, e: end, d: dynamic, t: type } of imports) {
      if (specifier === undefined || type === 3) {
        if (dynamic >= 0) throw new BuildError(`${located(path, text, start)}: import(…) of what is only known when it runs: a component is made of modules that are known when it is built`);
        continue;
      }
      const target = await this.target(path, specifier, located(path, text, start));
      let written = relative(dirname(place), target).split(sep).join('/');
      if (!written.startsWith('.')) written = `./${written}`;
      out += text.slice(at, start) + (dynamic >= 0 ? JSON.stringify(written) : written);
      at = end;
    }
    return out + text.slice(at);
  }

  async target(path, specifier, where) {
    if (specifier === 'millstream') return join('millstream', 'index.js');
    if (specifier.startsWith('millstream:')) throw new BuildError(`${where}: ${specifier} is the SDK's to import: what it offers is in "millstream"`);
    if (isBuiltin(specifier)) {
      const base = specifier.replace(/^node:/, '').split('/')[0];
      throw new BuildError(`${where}: a plugin has no "${specifier}": ${ABSENT[base] ?? 'it runs in a sandbox, not in Node'}`);
    }
    let resolved;
    try {
      resolved = /^[./]/.test(specifier) ? resolve(dirname(path), specifier) : fileURLToPath(resolveBare(path, specifier));
    } catch (error) {
      throw new BuildError(`${where}: there is no module "${specifier}": ${error.message.split('\n')[0]}`);
    }
    return this.module(resolved, `${where}: "${specifier}"`);
  }

  /** An object that names a member twice has the last alone: for declarations that is an oversight. */
  twice(path, text) {
    const { program, errors } = this.parser.parseSync(path, text);
    if (errors?.length) return;
    const visit = (node) => {
      if (node === null || typeof node !== 'object') return;
      if (Array.isArray(node)) return node.forEach(visit);
      if (node.type === 'ObjectExpression') {
        const seen = new Set();
        for (const { key, computed, kind } of node.properties) {
          const member = !computed && kind === 'init' ? (key?.name ?? key?.value) : undefined;
          if (member === undefined) continue;
          if (seen.has(member)) throw new BuildError(`${located(path, text, key.start)}: the member "${member}" is declared twice`);
          seen.add(member);
        }
      }
      for (const member in node) if (member !== 'parent') visit(node[member]);
    };
    visit(program);
  }
}

/** As Node finds packages, from the module that asks: by ES conditions. */
function resolveBare(path, specifier) {
  const required = createRequire(path);
  const parts = specifier.split('/');
  const packageName = specifier.startsWith('@') ? parts.slice(0, 2).join('/') : parts[0];
  for (const folder of required.resolve.paths(packageName) ?? []) {
    const manifest = join(folder, packageName, 'package.json');
    let found;
    try {
      found = required(manifest);
    } catch {
      continue;
    }
    const inner = `.${specifier.slice(packageName.length)}`;
    const target = exported(found.exports, inner) ?? (inner === '.' ? (found.module ?? found.main ?? 'index.js') : inner);
    return pathToFileURL(resolve(folder, packageName, target));
  }
  throw new Error('it is not installed: npm install');
}

function exported(exports, inner) {
  if (exports === undefined) return undefined;
  if (typeof exports === 'string' || Array.isArray(exports)) return inner === '.' ? exported({ '.': exports }, '.') ?? exports : undefined;
  const conditional = (target) => {
    if (typeof target === 'string' || target === null || target === undefined) return target ?? undefined;
    if (Array.isArray(target)) return target.map(conditional).find((found) => found !== undefined);
    for (const condition of Object.keys(target)) {
      if (['import', 'module', 'browser', 'worker', 'default'].includes(condition)) {
        const found = conditional(target[condition]);
        if (found !== undefined) return found;
      }
    }
    return undefined;
  };
  if (!Object.keys(exports).some((key) => key.startsWith('.'))) return inner === '.' ? conditional(exports) : undefined;
  return conditional(exports[inner]);
}

function located(path, text, at) {
  return `${relative(project, path)}:${text.slice(0, at).split('\n').length}`;
}

const APPLICATION = `
import './millstream/sandbox-install.js';
import plugin from './PLUGIN';
import { exported } from './millstream/glue.js';
import { write } from 'millstream:plugin/log@0.1.0';
import { update } from 'millstream:plugin/metrics@0.1.0';
STATE

const exports_ = exported(plugin, KIND, INFO, { write, update, state });
export const lifecycle = exports_.lifecycle;
export const EXPORT = exports_.EXPORT;
`;

async function main() {
  const lexer = await load('es-module-lexer');
  await lexer.init;
  const { componentize } = await import(pathToFileURL(join(tool, 'src', 'componentize.js')));
  await rm(work, { recursive: true, force: true });
  await mkdir(join(work, 'millstream'), { recursive: true });
  for (const file of JSON.parse(await readFile(join(sdk, 'files.json'), 'utf8'))) await copyFile(join(sdk, file), join(work, 'millstream', file));
  const stage = new Stage(lexer, (await load('oxc-parser')).default);
  const place = await stage.module(resolve(project, entry), 'package.json: "main"');
  const application = APPLICATION.trimStart()
    .replace('PLUGIN', () => place.split(sep).join('/'))
    .replace('STATE', kind === 'processor' ? "import * as state from 'millstream:plugin/state@0.1.0';" : 'const state = undefined;')
    .replace('KIND', JSON.stringify(kind))
    .replace('INFO', () => JSON.stringify({ name, version, summary }))
    .replaceAll('EXPORT', kind);
  const sourcePath = join(work, 'millstream-app.js');
  await writeFile(sourcePath, application);
  process.chdir(work);
  const { component } = await componentize({
    sourcePath,
    witPath: wit,
    worldName: `${kind}-plugin`,
    disableFeatures: ['stdio', 'random', 'clocks', 'http', 'fetch-event'],
  });
  await writeFile(output, component);
}

/** What the engine says of the plugin's own fault, without its tools' frames and repetitions. */
function explained(text) {
  if (!text.startsWith('Failed to initialize component')) return text;
  const out = [];
  for (const line of text.split('\n').slice(1)) {
    if (/^(Exception while evaluating|Additionally, some promises|Promise rejected but never handled|Stack:)/.test(line)) continue;
    const frame = /^ {2}(\S*)@(\S+:\d+:\d+)$/.exec(line);
    if (frame) {
      if (!frame[2].startsWith('millstream/')) out.push(`    at ${frame[1] || '(top level)'} (${frame[2]})`);
    } else out.push(line.replace(/^millstream\/\S+:\d+:\d+ /, ''));
  }
  return out.join('\n').trim() || text;
}

try {
  await main();
} catch (error) {
  const text = error instanceof BuildError ? error.message : (error.message ?? String(error));
  console.error(explained(text.replaceAll(`${work}${sep}`, '').replaceAll('plugin/', '')));
  process.exit(1);
}
