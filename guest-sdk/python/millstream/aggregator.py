"""Aggregators: many rows folded into one."""

import dataclasses

from . import batch, metrics, output
from .contract import Err, Failure, Table
from .errors import DeclarationError, told
from .plugin import Definition, branches_of, define, inputs_of
from .processor import signature_of
from .store import Stored


class AggregatorDefinition(Definition):
    """A class with `start`, `add` or `add_batch`, `merge` and `finish`."""

    kind = "aggregator"

    def __init__(self, cls):
        super().__init__(cls)
        name = cls.__name__
        for method in ("start", "merge", "finish"):
            if not hasattr(cls, method):
                raise DeclarationError(f"{name} has no `{method}`: an aggregator has `start`, `add`, `merge` and `finish`")
        if self.stores:
            raise DeclarationError(f"{name} has a store, but an aggregator has none: the host keeps its accumulators")
        by_row, by_batch = hasattr(cls, "add"), hasattr(cls, "add_batch")
        if by_row == by_batch:
            raise DeclarationError(f"{name} has {'both' if by_row else 'neither'} `add` and `add_batch`: it has one of them")
        _, found = signature_of(cls.start, f"{name}.start", 0)
        if "return" not in found:
            raise DeclarationError(f"{name}.start: say what it returns, as `-> int`: that is what is kept of a group")
        self.accumulator = Stored(found["return"], "accumulator", f"{name}.start")
        self.by_batch = by_batch
        if by_batch:
            self._of_batch()
        else:
            self._of_rows()
        self.inputs = [stream for stream, _ in self.rows]
        _, found = signature_of(cls.finish, f"{name}.finish", 1)
        self.branches = branches_of(found.get("return", type(None)), f"{name}.finish")
        for stream, _ in self.branches:
            stream.value = "new"

    def _of_rows(self):
        where = f"{self.cls.__name__}.add"
        parameters, found = signature_of(self.cls.add, where, 2)
        if not parameters:
            raise DeclarationError(f"{where} takes an accumulator and a row: `def add(self, count: int, row: Ride) -> int`")
        self.takes_row = len(parameters) == 2
        self.rows = inputs_of(found[parameters[1]] if self.takes_row else Nothing, where)

    def _of_batch(self):
        where = f"{self.cls.__name__}.add_batch"
        parameters, found = signature_of(self.cls.add_batch, where, 2)
        if len(parameters) != 2 or not isinstance(found[parameters[0]], batch.BatchOf):
            raise DeclarationError(f"{where} takes `batch: Batch[Ride]` and `groups: Groups`")
        self.rows = inputs_of(found[parameters[0]].row, where)


@dataclasses.dataclass
class Nothing:
    """A row of which nothing is read."""


def aggregator(cls):
    """Makes a class an aggregator: a set of functions, whose answers depend on their arguments and the settings alone.

    `start(self) -> int` is what a new group starts from; `add(self, count: int, row: Ride) -> int` returns it with a row
    added (without `row` nothing of it is read); `merge(self, count: int, later: int) -> int` adds what later rows made;
    `finish(self, count: int) -> Counted` returns the result. What is kept is a bool, int, float, str, bytes, Time or Json, a
    class with @row, or a dataclass, which may be changed in place and returned. `add_batch(self, batch: Batch[Ride], groups:
    Groups)` instead of `add` works by columns."""
    return define(AggregatorDefinition, cls)


class Groups:
    """The accumulators of a call, and the group that each row belongs to."""

    def __init__(self, accumulators, numbers):
        #: By group.
        self.accumulators = accumulators
        #: By row: the number of its group.
        self.of_rows = numbers
        self._failed = {}

    def fail(self, row, error):
        """Refuses a row. Its accumulator must be as if the row had not been there."""
        self._failed.setdefault(row, told(error) if isinstance(error, BaseException) else str(error))


class Aggregating:
    """A configured aggregator."""

    def __init__(self, definition, members):
        self.definition = definition
        self.plugin, self.signature, self.stores, self.metrics = definition.configure(members)
        self.branches = [(stream, cls) for stream, (_, cls) in zip(self.signature.branches, definition.branches)]

    def initial(self):
        """Fields and a table of one row."""
        stored = self.definition.accumulator
        return stored.fields, stored.table([self.plugin.start()])

    def accumulate(self, number, accumulators, groups, table):
        """Answers one call of the host: a table and failed rows."""
        stream, row = self.definition.rows[number]
        numbers = memoryview(groups).cast("I")

        def call():
            found = self.definition.accumulator.read(accumulators)
            if self.definition.by_batch:
                lent = Groups(found, numbers)
                self.plugin.add_batch(batch.Batch(row, table, stream.name), lent)
                return self.definition.accumulator.table(lent.accumulators), output.failures(lent._failed)
            return self._add(found, accumulators, numbers, row, table)

        return self._call(call)

    def _add(self, found, accumulators, numbers, row, table):
        add, failed = self.plugin.add, {}
        stored = self.definition.accumulator
        mutable = stored.mutable
        takes_row = self.definition.takes_row
        rows = batch.rows(row, table) if takes_row else numbers
        at = -1
        for group, row in zip(numbers, rows):
            at += 1
            try:
                after = add(found[group], row) if takes_row else add(found[group])
                if after is None and not mutable:
                    raise TypeError("add returned None: it returns what is kept with the row added")
            except Exception as error:
                failed[at] = told(error)
                if mutable:
                    found[group] = self._again(accumulators, numbers, table, group, at, failed)
            else:
                if after is not None:
                    found[group] = after
        if len(found) != accumulators.rows:
            raise TypeError("the accumulators of a call may not become fewer or more")
        return stored.table(found), output.failures(failed)

    def _again(self, accumulators, numbers, table, group, until, failed):
        """What a group had before a row that failed half-way: the rows before it are added once more."""
        again = self.definition.accumulator.read(accumulators)[group]
        takes_row = self.definition.takes_row
        rows = list(batch.rows(self.definition.rows[0][1], table)) if takes_row else None
        for at in range(until):
            if numbers[at] == group and at not in failed:
                after = self.plugin.add(again, rows[at]) if takes_row else self.plugin.add(again)
                again = again if after is None else after
        return again

    def merge(self, left, right):
        """Answers one call of the host: a table."""
        stored = self.definition.accumulator

        def call():
            merged = []
            for one, later in zip(stored.read(left), stored.read(right), strict=True):
                after = self.plugin.merge(one, later)
                if after is None and not stored.mutable:
                    raise TypeError("merge returned None: it returns what both make together")
                merged.append(one if after is None else after)
            return stored.table(merged)

        return self._call(call)

    def finish(self, accumulators):
        """Answers one call of the host: results."""

        def call():
            emissions = [output.Emission(stream, cls) for stream, cls in self.branches]
            by_class = {emission.cls: emission for emission in emissions}
            failed = {}
            for origin, one in enumerate(self.definition.accumulator.read(accumulators)):
                try:
                    result = self.plugin.finish(one)
                    if result is None:
                        continue
                    several = [result] if type(result) in by_class else list(result)
                    for one in several:
                        if type(one) not in by_class:
                            names = ", ".join(cls.__name__ for cls in by_class)
                            raise TypeError(f"finish returned {one!r}: it returns {names}, or None")
                except Exception as error:
                    failed[origin] = told(error)
                    continue
                for one in several:
                    emission = by_class[type(one)]
                    emission.origins.append(origin)
                    if emission.fields:
                        emission.rows.append(one)
            return output.without_faults(emissions, failed)

        return self._call(call)

    def _call(self, call):
        try:
            answer = call()
        except Exception as error:
            metrics.discard(self.metrics)
            raise Err(told(error)) from None
        metrics.flush(self.metrics)
        return answer
