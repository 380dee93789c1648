"""What a component exports, made of the plugin's class."""

import gc
import linecache
import os
import sys

from wit_world.imports import schema as wit

from . import log, plugin, sandbox
from .aggregator import Aggregating
from .contract import Err, Level, write_log
from .errors import DeclarationError, SDK_FOLDER, short, told
from .processor import Processing
from .settings import parse_settings

#: Calls between two collections of what refers to itself: what a call leaves is little.
CALLS_OF_COLLECTION = 64

_calls = 0


def exports(name, kind, load):
    """The classes that a component of this kind exports; `load` imports the plugin's module."""
    sandbox.install()
    before = set(sys.modules)
    load()
    found = plugin.defined
    if len(found) != 1:
        names = ", ".join(one.cls.__name__ for one in found)
        what = f"{len(found)} plugins: {names}" if found else "no plugin: a class with @processor or @aggregator"
        raise DeclarationError(f"the module has {what}; a component has one")
    definition = found[0]
    if definition.kind != kind:
        raise DeclarationError(
            f"{definition.cls.__name__} is a plugin of the kind {definition.kind}, but pyproject.toml says kind = {kind!r}"
        )
    _remember_sources(before)
    return Lifecycle, Processor if kind == "processor" else Aggregator


def ready(definition_name, version, summary):
    """Everything is imported: what follows is in the snapshot."""
    definition = plugin.defined[0]
    Lifecycle.definition = definition
    Lifecycle.info = wit.Info(definition_name, version, summary or definition.summary, definition.object.schema_text(), [])
    # What is made so far lives for ever, and need not be looked at again.
    gc.collect()
    gc.freeze()
    gc.disable()


def _remember_sources(before):
    """Lines of the plugin's own files, for tracebacks: there are no files later."""
    for name in set(sys.modules) - before:
        path = getattr(sys.modules[name], "__file__", None)
        if path and path.endswith(".py") and not path.startswith(SDK_FOLDER):
            lines = linecache.getlines(path)
            linecache.cache[short(path)] = linecache.cache[path] = (len(lines), None, lines, path)


def _wake():
    """The first call of an instance. Not before: what goes wrong while the component is made is for its author's terminal."""
    if not sandbox.sealed:
        log.install()
        sandbox.seal()


def _after_call():
    global _calls
    log.end_call()
    _calls += 1
    if _calls % CALLS_OF_COLLECTION == 0:
        gc.collect()


def field(field):
    return wit.Field(field.name, wit.FieldType[field.type.upper()], field.optional)


PLACES = {
    "value": wit.Place_Value,
    "key": wit.Place_Key,
    "header": wit.Place_Header,
    "raw_value": wit.Place_RawValue,
    "raw_key": wit.Place_RawKey,
    "timestamp": wit.Place_Timestamp,
    "offset": wit.Place_Offset,
    "tombstone": wit.Place_Tombstone,
}


def mapped(one):
    place = PLACES[one.place.kind]
    made = place(one.place.at) if one.place.kind in ("value", "key", "header") else place()
    return wit.MappedField(field(one.field), made)


def signature(own):
    carried = {"same": wit.Carried_Same, "constant": wit.Carried_Constant}
    return wit.Signature(
        [wit.Input(one.name, [mapped(f) for f in one.fields]) for one in own.inputs],
        [wit.Branch(one.name, wit.ValueBase[one.value.upper()], [mapped(f) for f in one.fields]) for one in own.branches],
        [
            wit.Store(
                one.name,
                [field(f) for f in one.key],
                [field(f) for f in one.value],
                one.ordered,
                one.time_to_live_ms,
                [carried[kind](text) for kind, text in one.carry_over],
            )
            for one in own.stores
        ],
        [wit.Metric(one.name, one.summary, wit.MetricKind[one.kind.upper()]) for one in own.metrics],
    )


configured = None


class Lifecycle:
    definition = None
    info = None

    def describe(self):
        _wake()
        return self.info

    def configure(self, config):
        global configured
        _wake()
        definition = self.definition
        kind = Processing if definition.kind == "processor" else Aggregating
        try:
            configured = kind(definition, parse_settings(definition.object, config))
            return signature(configured.signature)
        except Exception as error:
            raise Err(told(error)) from None
        finally:
            log.end_call()


def _guarded(call, *arguments):
    try:
        return call(*arguments)
    except Exception:
        # Made by those that know what failed.
        raise
    except BaseException as error:
        # `sys.exit` and the like: the call ends as by a crash, and this line says why.
        write_log(Level.ERROR, told(error))
        raise
    finally:
        _after_call()


class Processor:
    def process(self, input, rows):
        return _guarded(configured.process, input, rows)


class Aggregator:
    def initial(self):
        from wit_world.exports.aggregator import Accumulator

        fields, start = configured.initial()
        return Accumulator([field(one) for one in fields], start)

    def accumulate(self, input, accumulators, groups, rows):
        from wit_world.exports.aggregator import Accumulated

        return Accumulated(*_guarded(configured.accumulate, input, accumulators, groups, rows))

    def merge(self, left, right):
        return _guarded(configured.merge, left, right)

    def finish(self, accumulators):
        return _guarded(configured.finish, accumulators)
