"""The rows of a call."""

from . import columns
from .errors import DeclarationError


class Batch:
    """The rows of a call, by columns: `batch: Batch[Ride]`. Each field is an attribute: a memoryview of numbers or
    booleans, a list of everything else, and a list where a cell is None. `len` is the number of rows."""

    def __init__(self, row, table, name="input"):
        self._row, self._table = row, table
        #: The name of the input.
        self.input = name

    def __class_getitem__(cls, row):
        return BatchOf(row)

    def __len__(self):
        return self._table.rows

    def __getattr__(self, name):
        for mapped, column in zip(self._row.fields, self._table.columns):
            if mapped.name == name:
                cells = columns.read(mapped.field, column, self._table.rows)
                self.__dict__[name] = cells
                return cells
        raise AttributeError(f"a {self._row.cls.__name__} has no field {name!r}")

    def rows(self):
        """The rows, one by one."""
        return rows(self._row, self._table)


class BatchOf:
    """The type hint `Batch[Ride]`."""

    def __init__(self, row):
        self.row = row

    def __call__(self):
        raise DeclarationError("Batch[…] is a type hint")


def rows(row, table):
    """The rows of a table, one by one."""
    if not row.fields:
        return [row.cls()] * table.rows
    cells = [
        columns.read(mapped.field, column, table.rows) for mapped, column in zip(row.fields, table.columns, strict=True)
    ]
    return row.make(zip(*cells))
