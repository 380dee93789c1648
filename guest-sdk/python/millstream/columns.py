"""Columns: as they cross, and as Python has them."""

import json
from array import array
from itertools import accumulate, chain

from . import schema
from .contract import Column
from .fields import PYTHON

CODES = {schema.INTEGER: "q", schema.TIME: "q", schema.FLOAT: "d"}
ZEROS = {schema.INTEGER: 0, schema.TIME: 0, schema.FLOAT: 0.0, schema.BOOLEAN: False, schema.BYTES: b""}
NO_NULLS = b""
_dump = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_load = json.JSONDecoder().decode


class CellError(Exception):
    """A cell that is not of its field's type."""


def read(field, column, rows):
    """The cells of a column: a memoryview of numbers or booleans, else a list; a list where a cell is None."""
    type = field.type
    if type in CODES:
        cells = memoryview(column.data).cast(CODES[type])
    elif type == schema.BOOLEAN:
        cells = memoryview(column.data).cast("?")
    else:
        cells = _texts(type, column)
        if type == schema.JSON and not field.as_text:
            nulls = column.nulls
            if nulls:
                return [None if null else _load(cell) for cell, null in zip(cells, nulls)]
            cells = [_load(cell) for cell in cells]
    if len(cells) != rows:
        raise ValueError(f"the column {field.name!r} has {len(cells)} cells for {rows} rows")
    if column.nulls:
        return [None if null else cell for cell, null in zip(cells, column.nulls)]
    return cells


def _texts(type, column):
    ends, data = memoryview(column.ends).cast("I"), column.data
    if type != schema.BYTES:
        text = data.decode()
        if len(text) != len(data):
            return [data[start:end].decode() for start, end in zip(chain((0,), ends), ends)]
        data = text
    return list(map(data.__getitem__, map(slice, chain((0,), ends), ends)))


def write(field, cells):
    """The column of cells: a list, tuple, array or memoryview.

    Raises `TypeError`, `ValueError` or `OverflowError` where a cell is not of the type; `fault` says which and why."""
    parsed = field.type == schema.JSON and not field.as_text
    nulls = NO_NULLS
    if field.optional and isinstance(cells, (list, tuple)) and None in cells:
        nulls = bytes([cell is None for cell in cells])
        if parsed:
            cells = ["" if cell is None else _dump(cell) for cell in cells]
            parsed = False
        else:
            zero = ZEROS.get(field.type, "")
            cells = [zero if cell is None else cell for cell in cells]
    code = CODES.get(field.type)
    if code:
        if isinstance(cells, (array, memoryview)) and (getattr(cells, "typecode", None) or cells.format) == code:
            return Column(nulls, b"", cells.tobytes())
        return Column(nulls, b"", array(code, cells).tobytes())
    if field.type == schema.BOOLEAN:
        data = bytes(cells)
        if data.translate(None, b"\0\1"):
            raise TypeError("not a bool")
        return Column(nulls, b"", data)
    if field.type == schema.BYTES:
        data = b"".join(cells)
        return Column(nulls, array("I", accumulate(map(len, cells))).tobytes(), data)
    if parsed:
        if None in cells:
            raise TypeError("None is no cell")
        cells = [_dump(cell) for cell in cells]
    text = "".join(cells)
    data = text.encode()
    if len(data) != len(text):
        cells = [cell.encode() for cell in cells]
    return Column(nulls, array("I", accumulate(map(len, cells))).tobytes(), data)


def fault(field, cell):
    """What is wrong with a cell; None if nothing is."""
    if cell is None:
        return None if field.optional else f"`{field.name}` is None, but is not declared `| None`"
    try:
        write(field, [cell])
    except OverflowError:
        return f"`{field.name}` is {_short(cell)}, which has no room in 64 bits"
    except UnicodeEncodeError:
        return f"`{field.name}` is {_short(cell)}, which is not Unicode text: it has half of a surrogate pair"
    except (TypeError, ValueError, AttributeError) as error:
        if field.type == schema.JSON:
            return f"`{field.name}` cannot be written as JSON: {error}"
        return f"`{field.name}` must be {PYTHON[field.type]}, but is {_short(cell)}, {_kind(cell)}"
    return None


def _short(cell):
    text = repr(cell)
    return text if len(text) <= 60 else text[:57] + "..."


def _kind(cell):
    name = type(cell).__name__
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"
