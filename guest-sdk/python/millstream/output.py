"""What a call emits."""

from array import array

from . import columns
from .contract import Emitted, Failure, Outputs
from .errors import DeclarationError, told


class Emission:
    """Rows for one branch."""

    def __init__(self, stream, cls):
        self.stream, self.cls = stream, cls
        self.fields = [mapped.field for mapped in stream.fields]
        self.origins = []
        #: One tuple for each row; nothing for a branch without fields.
        self.rows = []
        #: Columns that were emitted as such, in pieces: (the number of rows before, origins, columns).
        self.whole = None

    def remove(self, bad):
        """Takes out the rows of these origins."""
        keep = [at for at, origin in enumerate(self.origins) if origin not in bad]
        if self.fields:
            self.rows = [self.rows[at] for at in keep]
        self.origins = [self.origins[at] for at in keep]

    def faults(self):
        """What is wrong with the cells, by origin: the first of each."""
        found = {}
        for origin, row in zip(self.origins, self.rows):
            for field, cell in zip(self.fields, row):
                wrong = columns.fault(field, cell)
                if wrong and origin not in found:
                    found[origin] = f"branch {self.stream.name!r}: {wrong}"
        return found

    def emitted(self):
        if self.whole is not None:
            origins, cells = self.whole
            return Emitted(origins, [columns.write(field, column) for field, column in zip(self.fields, cells)])
        origins = array("I", self.origins).tobytes()
        if not self.fields:
            return Emitted(origins, [])
        cells = zip(*self.rows) if self.rows else [()] * len(self.fields)
        return Emitted(origins, [columns.write(field, column) for field, column in zip(self.fields, cells)])


class Output:
    """Takes what a call emits, for a plugin that works by columns: `out: Output[High | Low]`."""

    def __init__(self, branches, rows):
        self._rows = rows
        self._emissions = [Emission(stream, cls) for stream, cls in branches]
        self._by_class = {emission.cls: emission for emission in self._emissions}
        self._failed = {}

    def __class_getitem__(cls, branches):
        return OutputOf(branches)

    def emit(self, branch, origins, **cells):
        """Emits rows for a branch, once in a call: `origins` are the numbers of the input rows that they come from, which do
        not descend; each field has a list, array or memoryview of as many cells. A bool for each input row does for
        `origins` too, where it is a `bytes` or `bytearray`."""
        emission = self._by_class.get(branch)
        if emission is None:
            raise TypeError(f"{getattr(branch, '__name__', branch)!r} is no branch of this plugin")
        if emission.whole is not None:
            raise TypeError(f"rows of the branch {emission.stream.name!r} were emitted already: once in a call")
        names = [field.name for field in emission.fields]
        if cells.keys() != set(names):
            raise TypeError(f"the branch {emission.stream.name!r} has the fields {names}, but {list(cells)} were emitted")
        packed = origins if isinstance(origins, array) and origins.typecode == "I" else array("I", origins)
        for name in names:
            if len(cells[name]) != len(packed):
                raise ValueError(f"`{name}` has {len(cells[name])} cells for {len(packed)} rows")
        emission.whole = (packed.tobytes(), [cells[name] for name in names])
        emission.origins = packed

    def fail(self, row, error):
        """Refuses an input row: the error's message goes with it to the dead-letter queue. It may not be emitted."""
        self._failed.setdefault(row, told(error) if isinstance(error, BaseException) else str(error))

    def finish(self):
        for emission in self._emissions:
            if emission.whole is None:
                continue
            before = 0
            for origin in emission.origins:
                if origin < before or origin >= self._rows:
                    say = f"{origin} follows {before}" if origin < before else f"there is no row {origin} among {self._rows}"
                    raise ValueError(f"origins of the branch {emission.stream.name!r}: {say}")
                before = origin
            for field, cells in zip(emission.fields, emission.whole[1]):
                for at, cell in enumerate(cells if isinstance(cells, (list, tuple)) else ()):
                    if type(cell) in _PLAIN.get(field.type, ()):
                        continue
                    wrong = columns.fault(field, cell)
                    if wrong:
                        raise TypeError(f"branch {emission.stream.name!r}, row {at}: {wrong}")
        return Outputs([emission.emitted() for emission in self._emissions], failures(self._failed))


_PLAIN = {"float": (float,), "text": (str,), "bytes": (bytes,), "boolean": (bool,)}


class OutputOf:
    """The type hint `Output[High | Low]`."""

    def __init__(self, branches):
        self.branches = branches

    def __call__(self):
        raise DeclarationError("Output[…] is a type hint")


def failures(failed):
    """The failed rows, by their numbers."""
    return [Failure(row, message) for row, message in sorted(failed.items())]


def without_faults(emissions, failed):
    """The branches of a call whose rows were emitted one by one; rows with a cell that is not of its type fail."""
    try:
        return Outputs([emission.emitted() for emission in emissions], failures(failed))
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        found = {}
        for emission in emissions:
            found.update(emission.faults())
        if not found:
            raise
        for emission in emissions:
            emission.remove(found)
        return without_faults(emissions, found | failed)

