"""Stores: dicts that outlive a call. The host keeps them, one for each partition."""

import copy
import dataclasses

from . import columns
from .contract import Table, state
from .errors import DeclarationError
from .fields import CarriedFrom, parse, row_type, scalar, shown
from .schema import StoreSchema
from .settings import milliseconds

#: Keys that are asked for in one call of the host: what they and their values take must fit into memory twice.
KEYS_OF_CALL_MAX = 1 << 14
#: Rows of the first page of a scan; each page is twice the one before.
FIRST_PAGE_ROWS = 64
PAGE_ROWS_MAX = 4096

_ABSENT = object()
_UNKNOWN = object()


class Stored:
    """How keys, values and accumulators of one type become cells, and cells become them."""

    def __init__(self, hint, name, where):
        field, extras = scalar(name, hint, where)
        self.hint = hint
        if field is not None:
            self.fields, self.row = [field], None
            self.carried = [next((e for e in extras if isinstance(e, CarriedFrom)), CarriedFrom("same", name))]
            self.mutable = field.type == "json" and not field.as_text
            return
        base, optional, _ = parse(hint)
        if base is type(None):
            self.fields, self.row, self.carried, self.mutable = [], None, [], False
            return
        if optional:
            raise DeclarationError(f"{where} is {shown(hint)}: of what is kept only single cells may be None, not a row")
        self.row = row_type(base, where)
        self.fields = self.row.plain_fields()
        self.carried = self.row.carried
        self.mutable = dataclasses.is_dataclass(base) or any(f.type == "json" and not f.as_text for f in self.fields)

    def table(self, items):
        """The table of some items.

        Raises `TypeError` with field and cell where one does not fit."""
        try:
            return Table(len(items), [columns.write(f, cells) for f, cells in zip(self.fields, self._cells(items))])
        except (TypeError, ValueError, OverflowError, AttributeError):
            for item in items:
                self.check(item)
            raise

    def _cells(self, items):
        if not self.fields:
            return []
        if self.row is None:
            return [items]
        if not items:
            return [()] * len(self.fields)
        if dataclasses.is_dataclass(self.row.cls):
            names = [field.name for field in self.fields]
            return [[getattr(item, name) for item in items] for name in names]
        return list(zip(*items, strict=True))

    def read(self, table):
        """The items of a table."""
        cells = [columns.read(f, column, table.rows) for f, column in zip(self.fields, table.columns, strict=True)]
        if not self.fields:
            return [None if self.row is None else self.row.cls()] * table.rows
        if self.row is None:
            return list(cells[0])
        return list(self.row.make(zip(*cells)))

    def check(self, item):
        """Raises `TypeError` where an item is not of the type."""
        if self.row is not None and not isinstance(item, self.row.cls):
            raise TypeError(f"{self.row.cls.__name__} is expected, but this is {columns._short(item)}")
        if not self.fields:
            if item is not None:
                raise TypeError(f"None is expected, but this is {columns._short(item)}")
            return
        for field, cells in zip(self.fields, self._cells([item])):
            wrong = columns.fault(field, cells[0])
            if wrong:
                raise TypeError(wrong)

    def lent(self, item):
        """What may be given away: what is kept is not to be changed unseen."""
        return copy.deepcopy(item) if self.mutable and item is not None else item


class Store:
    """A dict that outlives the call: an attribute of the plugin, `counts: Store[int, int]`.

    What is asked for is fetched from the host and kept until the call ends; a call of the host costs far more than a
    row, so the plugin's `prefetch` says which keys the rows will ask for. What was set is written once, when the call has
    succeeded. A row that fails leaves no change. A value that can be changed in place is a copy: set it again."""

    def __init__(self, *, name=None, ordered=False, time_to_live=None):
        self._name, self._ordered, self._time_to_live = name, ordered, time_to_live
        self._number = None
        self._key = self._value = None
        self._rows = {}
        self._changed = set()
        self._undo = {}
        self._wanted = []

    def __class_getitem__(cls, types):
        return StoreOf(*types) if isinstance(types, tuple) and len(types) == 2 else StoreOf(types, type(None))

    def get(self, key, default=None):
        """The value of a key, or `default`."""
        found = self._rows.get(key, _UNKNOWN)
        if found is _UNKNOWN:
            self._wanted.append(key)
            self._fetch()
            found = self._rows.get(key, _ABSENT)
        if found is _ABSENT:
            return default
        return self._value.lent(found) if self._value and self._value.mutable else found

    def __getitem__(self, key):
        found = self.get(key, _ABSENT)
        if found is _ABSENT:
            raise KeyError(key)
        return found

    def __contains__(self, key):
        return self.get(key, _ABSENT) is not _ABSENT

    def __setitem__(self, key, value):
        if self._value and self._value.mutable:
            value = self._value.lent(value)
        self._set(key, value)

    def __delitem__(self, key):
        self._set(key, _ABSENT)

    def add(self, key):
        """Puts a key into a store without values, a set."""
        self._set(key, None)

    def discard(self, key):
        """Takes a key out, if it is there. What was there is not fetched for it."""
        self._set(key, _ABSENT)

    def pop(self, key, default=None):
        """Takes a key out and returns its value, or `default`."""
        found = self.get(key, default)
        self.discard(key)
        return found

    def setdefault(self, key, default):
        """The value of a key, which becomes `default` where there is none."""
        found = self.get(key, _ABSENT)
        if found is _ABSENT:
            self[key] = found = default
        return found

    def prefetch(self, keys):
        """Says that these keys will be asked for: they are fetched at once, when the first is."""
        self._wanted.extend(keys)

    def _set(self, key, value):
        undo = self._undo
        if key not in undo:
            undo[key] = (self._rows.get(key, _UNKNOWN), key in self._changed)
        self._rows[key] = value
        self._changed.add(key)

    def _fetch(self):
        rows = self._rows
        wanted = [key for key in dict.fromkeys(self._wanted) if key not in rows]
        self._wanted = []
        if self._number is None:
            return
        for start in range(0, len(wanted), KEYS_OF_CALL_MAX):
            keys = wanted[start : start + KEYS_OF_CALL_MAX]
            found = state.get(self._number, self._keys(keys))
            values = self._value.read(found.values)
            if found.absent:
                values = [_ABSENT if absent else value for value, absent in zip(values, found.absent)]
            rows.update(zip(keys, values, strict=True))

    def _keys(self, keys):
        try:
            return self._key.table(keys)
        except TypeError as error:
            raise TypeError(f"a key of the store {self._name!r}: {error}") from None

    def scan(self, *prefix):
        """The rows whose keys begin with `prefix`, in the order of the keys: pairs of key and value. What the call changed
        so far is seen. Rows are fetched as they are asked for."""
        if not self._ordered:
            raise DeclarationError(f"the store {self._name!r} is not ordered: Store(ordered=True)")
        if len(prefix) > len(self._key.fields):
            raise TypeError(f"the keys of the store {self._name!r} have {len(self._key.fields)} fields, not {len(prefix)}")
        own = sorted((key for key in self._changed if self._cells(key)[: len(prefix)] == prefix), key=self._cells)
        fields = self._key.fields[: len(prefix)]
        prefix_table = Table(1, [columns.write(field, [cell]) for field, cell in zip(fields, prefix)])
        after, limit, complete = [], FIRST_PAGE_ROWS, False
        while not complete:
            page = state.scan(self._number, prefix_table, self._keys(after), limit)
            keys, values = self._key.read(page.keys), self._value.read(page.values)
            complete, limit = page.complete, min(limit * 2, PAGE_ROWS_MAX)
            after = keys[-1:]
            for key, value in zip(keys, values, strict=True):
                order = self._cells(key)
                while own and self._cells(own[0]) < order:
                    yield from self._own(own.pop(0))
                if own and self._cells(own[0]) == order:
                    yield from self._own(own.pop(0))
                else:
                    yield key, self._value.lent(value)
        for key in own:
            yield from self._own(key)

    def _own(self, key):
        value = self._rows[key]
        if value is not _ABSENT:
            yield key, self._value.lent(value)

    def _cells(self, key):
        # Texts are ordered by their bytes, which is the order of their code points: Python's own.
        if self._key.row is None:
            return (key,)
        return tuple(getattr(key, field.name) for field in self._key.fields)

    def _next_row(self):
        if self._undo:
            self._undo.clear()

    def _undo_row(self):
        for key, (value, changed) in self._undo.items():
            if value is _UNKNOWN:
                del self._rows[key]
            else:
                self._rows[key] = value
            if not changed:
                self._changed.discard(key)
        self._undo.clear()

    def _forget(self):
        self._rows.clear()
        self._changed.clear()
        self._undo.clear()
        self._wanted = []

    def _flush(self):
        if self._changed and self._number is not None:
            rows = self._rows
            gone = [key for key in rows if key in self._changed and rows[key] is _ABSENT]
            put = [key for key in rows if key in self._changed and rows[key] is not _ABSENT]
            for start in range(0, len(put), KEYS_OF_CALL_MAX):
                keys = put[start : start + KEYS_OF_CALL_MAX]
                try:
                    values = self._value.table([rows[key] for key in keys])
                except TypeError as error:
                    raise TypeError(f"a value of the store {self._name!r}: {error}") from None
                state.put(self._number, self._keys(keys), values)
            for start in range(0, len(gone), KEYS_OF_CALL_MAX):
                state.delete(self._number, self._keys(gone[start : start + KEYS_OF_CALL_MAX]))
        self._forget()


class StoreOf:
    """The type hint `Store[K, V]`, or `Store[K]` for a set of keys."""

    def __init__(self, key, value):
        self.key, self.value = key, value

    def __call__(self, *args, **kwargs):
        return Store(*args, **kwargs)

    def declare(self, attribute, made, where):
        """What the plugin says of the store, and the store's own part that tells types."""
        key, value = Stored(self.key, "key", where), Stored(self.value, "value", where)
        if not key.fields:
            raise DeclarationError(f"{where}: the key of a store has a field at least")
        for field in key.fields:
            if field.optional or field.type == "float" or (field.type == "json" and not field.as_text):
                raise DeclarationError(f"{where}: `{field.name}` cannot be in a key: it is optional, a float or parsed JSON")
        if key.mutable:
            raise DeclarationError(f"{where}: a key does not change: put @row on its class")
        time_to_live_ms = 0
        if made._time_to_live is not None:
            time_to_live_ms = milliseconds(made._time_to_live)
            if not time_to_live_ms:
                raise DeclarationError(f"{where}: time_to_live is a duration such as \"24h\", not {made._time_to_live!r}")
        declared = StoreSchema(
            made._name or attribute.replace("_", "-").lower(),
            key.fields,
            value.fields,
            made._ordered,
            time_to_live_ms,
            [(carried.kind, carried.text) for carried in value.carried],
        )
        return declared, key, value
