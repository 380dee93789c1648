"""Processors: rows in, rows for branches out."""

import inspect

from . import batch, metrics, output
from .contract import Err
from .errors import DeclarationError, Reject, told
from .fields import hints
from .plugin import Definition, branches_of, define, inputs_of


class ProcessorDefinition(Definition):
    """A class with `process`, or with `process_batch`."""

    kind = "processor"

    def __init__(self, cls):
        super().__init__(cls)
        by_row, by_batch = hasattr(cls, "process"), hasattr(cls, "process_batch")
        if by_row == by_batch:
            raise DeclarationError(
                f"{cls.__name__} has {'both' if by_row else 'neither'} `process(self, row)` and "
                "`process_batch(self, batch, out)`: a processor has one of them"
            )
        self.by_batch = by_batch
        if by_batch:
            self._of_batch()
        else:
            self._of_rows()
        self.inputs = [stream for stream, _ in self.rows]

    def _of_rows(self):
        where = f"{self.cls.__name__}.process"
        parameters, found = signature_of(self.cls.process, where, 1)
        if not parameters:
            raise DeclarationError(f"{where} takes no row: `def process(self, row: Ride)`")
        self.rows = inputs_of(found[parameters[0]], where)
        self.branches = branches_of(found.get("return", type(None)), where)

    def _of_batch(self):
        where = f"{self.cls.__name__}.process_batch"
        parameters, found = signature_of(self.cls.process_batch, where, 2)
        kinds = [found[name] for name in parameters]
        if len(kinds) != 2 or not isinstance(kinds[0], batch.BatchOf) or not isinstance(kinds[1], output.OutputOf):
            raise DeclarationError(f"{where} takes `batch: Batch[Ride]` and `out: Output[High | Low]`")
        self.rows = inputs_of(kinds[0].row, where)
        self.branches = branches_of(kinds[1].branches, where)


def signature_of(function, where, most):
    """The names of a method's parameters without `self`, and their type hints."""
    names = list(inspect.signature(function).parameters)[1:]
    if len(names) > most:
        raise DeclarationError(f"{where} takes {len(names)} parameters, but is given {most}")
    found = hints(function, where)
    for name in names:
        if name not in found:
            raise DeclarationError(f"{where}: say what `{name}` is by a type hint")
    return names, found


def processor(cls):
    """Makes a class a processor.

    Its annotations are its settings, stores and metrics; its docstring's first line describes it. It has
    `process(self, row: Ride) -> High | Low | None`, which returns the row's branch, or several of them, or yields them;
    or `process_batch(self, batch: Batch[Ride], out: Output[High | Low])`. It may have `__post_init__(self)`, which runs
    when the settings are there; `signature(self, signature)`, which changes what the classes say; and
    `prefetch(self, rows)`, which names the keys of stores that the rows will ask for."""
    return define(ProcessorDefinition, cls)


class Processing:
    """A configured processor."""

    def __init__(self, definition, members):
        self.definition = definition
        self.plugin, self.signature, self.stores, self.metrics = definition.configure(members)
        self.branches = [(stream, cls) for stream, (_, cls) in zip(self.signature.branches, definition.branches)]

    def process(self, number, table):
        """Answers one call of the host."""
        stream, row = self.definition.rows[number]
        try:
            if self.definition.by_batch:
                out = output.Output(self.branches, table.rows)
                self.plugin.process_batch(batch.Batch(row, table, stream.name), out)
                answer = out.finish()
            else:
                answer = self._rows(row, table)
            for store in self.stores:
                store._flush()
        except Exception as error:
            for store in self.stores:
                store._forget()
            metrics.discard(self.metrics)
            raise Err(told(error)) from None
        metrics.flush(self.metrics)
        return answer

    def _rows(self, row, table):
        emissions = [output.Emission(stream, cls) for stream, cls in self.branches]
        by_class = {
            emission.cls: (emission.origins.append, emission.rows.append if emission.fields else None)
            for emission in emissions
        }
        failed = {}
        process, stores = self.plugin.process, self.stores
        rows = batch.rows(row, table)
        if stores and hasattr(self.plugin, "prefetch"):
            rows = list(rows)
            self.plugin.prefetch(rows)
        origin = -1
        for row in rows:
            origin += 1
            if stores:
                for store in stores:
                    store._next_row()
            try:
                emitted = process(row)
                appends = by_class.get(type(emitted))
                if appends is None and emitted is not None:
                    emitted = self._several(emitted)
            except Exception as error:
                failed[origin] = told(error)
                for store in stores:
                    store._undo_row()
                continue
            if appends is not None:
                appends[0](origin)
                if appends[1] is not None:
                    appends[1](emitted)
            elif emitted is not None:
                for one in emitted:
                    append_origin, append_row = by_class[type(one)]
                    append_origin(origin)
                    if append_row is not None:
                        append_row(one)
        if stores:
            # Its changes of stores could not be taken back from here: the host finds the row.
            faults = [fault for emission in emissions for fault in emission.faults().values()] if self._suspect(emissions) else []
            if faults:
                raise Reject(faults[0])
        return output.without_faults(emissions, failed)

    def _suspect(self, emissions):
        try:
            for emission in emissions:
                emission.emitted()
        except (TypeError, ValueError, OverflowError, AttributeError):
            return True
        return False

    def _several(self, emitted):
        """What a `process` returned that is no single row of a branch."""
        known = {cls for _, cls in self.branches}
        if emitted in known if isinstance(emitted, type) else False:
            return [emitted()]
        names = ", ".join(f"{cls.__name__}(…)" for _, cls in self.branches)
        if isinstance(emitted, (str, bytes, dict, tuple)) or not hasattr(emitted, "__iter__"):
            raise TypeError(f"process returned {_short(emitted)}: it returns {names}, several of them, or None")
        several = list(emitted)
        for one in several:
            if type(one) not in known:
                raise TypeError(f"process emitted {_short(one)}: it emits {names}")
        return several


def _short(value):
    text = repr(value)
    if len(text) > 60:
        text = text[:57] + "..."
    return f"{text} ({type(value).__name__})"
