// What a component exports, made of the plugin.

import { Aggregating } from './aggregator.js';
import { Crash, DeclarationError, described, told } from './errors.js';
import * as log from './log.js';
import { Definition } from './plugin.js';
import { Processing } from './processor.js';
import { seal } from './sandbox.js';

/** The exports of a component of this kind. `host` has the functions of the contract that it imports. */
export function exported(plugin, kind, { name, version, summary }, host) {
  if (!(plugin instanceof Definition)) {
    throw new DeclarationError(`the module's default export is ${described(plugin)}: export default processor({ … })`);
  }
  if (plugin.kind !== kind) {
    throw new DeclarationError(`the module exports a plugin of the kind ${plugin.kind}, but package.json says "kind": "${kind}"`);
  }
  const info = { name, version, summary, configSchema: plugin.schema, capabilities: [] };
  let configured;
  log.install(host.write);
  const call = (answer) => {
    try {
      return answer();
    } catch (error) {
      if (error instanceof Crash) {
        host.write('error', told(error));
        throw error;
      }
      throw told(error);
    } finally {
      log.endCall();
    }
  };
  const lifecycle = {
    describe: () => info,
    configure: (config) =>
      call(() => {
        const kinds = { processor: Processing, aggregator: Aggregating };
        configured = new kinds[kind](plugin, config, host);
        return configured.signature;
      }),
  };
  seal();
  if (kind === 'processor') {
    return { lifecycle, processor: { process: (input, rows) => call(() => configured.process(input, rows)) } };
  }
  return {
    lifecycle,
    aggregator: {
      initial: () => configured.initial(),
      accumulate: (input, accumulators, groups, rows) => call(() => configured.accumulate(input, accumulators, groups, rows)),
      merge: (left, right) => call(() => configured.merge(left, right)),
      finish: (accumulators) => call(() => configured.finish(accumulators)),
    },
  };
}
