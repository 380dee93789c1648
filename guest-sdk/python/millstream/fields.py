"""Rows: classes whose annotations say which fields a plugin reads, emits or keeps."""

import dataclasses
import inspect
import json
import types
import typing
from collections import namedtuple
from typing import Annotated, Any, Union, dataclass_transform, get_args, get_origin

from . import schema
from .errors import DeclarationError, kebab
from .schema import Field, MappedField, Place


@dataclasses.dataclass(frozen=True)
class _As:
    type: str
    as_text: bool = False


Time = Annotated[int, _As(schema.TIME)]
"""Milliseconds since 1970-01-01T00:00:00Z, negative before."""
Json = Annotated[Any, _As(schema.JSON)]
"""Any JSON, parsed: dicts, lists, texts, numbers, booleans. Its `null` is None."""
JsonText = Annotated[str, _As(schema.JSON, True)]
"""Any JSON, as its text stands."""

TYPES = {bool: schema.BOOLEAN, int: schema.INTEGER, float: schema.FLOAT, str: schema.TEXT, bytes: schema.BYTES}
PYTHON = {
    schema.BOOLEAN: "a bool",
    schema.INTEGER: "an int",
    schema.FLOAT: "a float",
    schema.TEXT: "a str",
    schema.BYTES: "bytes",
    schema.TIME: "an int of milliseconds",
    schema.JSON: "what JSON can hold",
}
PLACE_TYPES = {
    "header": (schema.TEXT, schema.BYTES),
    "raw_value": (schema.BYTES,),
    "raw_key": (schema.BYTES,),
    "timestamp": (schema.TIME,),
    "offset": (schema.INTEGER,),
    "tombstone": (schema.BOOLEAN,),
}


def value(path):
    """A field lies here in the value: a JSON Pointer, "" for the whole of it."""
    return Place("value", pointer(path))


def key(path=""):
    """A field lies here in the key, or is the whole key."""
    return Place("key", pointer(path))


def header(name):
    """A field is the last header of this name; a str or bytes."""
    return Place("header", name)


raw_value = Place("raw_value")
"""The value's bytes as they stand, None for a tombstone."""
raw_key = Place("raw_key")
"""The key's bytes, None for a record without a key."""
timestamp = Place("timestamp")
"""The record's timestamp, a `Time`."""
offset = Place("offset")
"""The record's offset in its partition, an int."""
tombstone = Place("tombstone")
"""Whether the value is null, a bool."""


@dataclasses.dataclass(frozen=True)
class CarriedFrom:
    """In a store: where the field comes from in rows of an earlier version."""

    kind: str
    text: str


def was(name):
    """In a store: the field had this name in an earlier version."""
    return CarriedFrom("same", name)


def added(constant=None):
    """In a store: the field is new, and is this in rows of an earlier version."""
    return CarriedFrom("constant", json.dumps(constant))


def pointer(path):
    """The path, if it is a JSON Pointer."""
    if not isinstance(path, str):
        raise DeclarationError(f"a path is a text such as \"/total_amount\", but this one is {path!r}")
    if path and not path.startswith("/"):
        raise DeclarationError(f"a path is a JSON Pointer and begins with a slash: \"/{path.replace('.', '/')}\"")
    if any(not rest.startswith(("0", "1")) for rest in path.split("~")[1:]):
        raise DeclarationError(f"in the path {path!r} `~` is written `~0`, and `/` in a name `~1`")
    return path


def parse(hint):
    """A type hint taken apart: the type, whether it may be None, and what `Annotated` says of it."""
    extras, optional = [], False
    while True:
        origin = get_origin(hint)
        if origin is Annotated:
            extras.extend(hint.__metadata__)
            hint = hint.__origin__
        elif origin in (Union, types.UnionType) and type(None) in get_args(hint):
            optional = True
            rest = [argument for argument in get_args(hint) if argument is not type(None)]
            hint = rest[0] if len(rest) == 1 else Union[tuple(rest)]
        else:
            return hint, optional, extras


def hints(of, where):
    """The type hints of a class or function."""
    try:
        return typing.get_type_hints(of, include_extras=True)
    except NameError as error:
        raise DeclarationError(f"{where}: the name {error.name!r} in its type hints is not known at the module's top level")


def scalar(name, hint, where):
    """The field of a type hint, with what `Annotated` says of it; None where it is no type of a cell."""
    base, optional, extras = parse(hint)
    named = [extra for extra in extras if isinstance(extra, _As)]
    if named:
        return Field(name, named[0].type, optional, named[0].as_text), extras
    if base in TYPES:
        return Field(name, TYPES[base], optional), extras
    return None, extras


@dataclasses.dataclass
class RowType:
    """What is known of a row class."""

    cls: type
    fields: list
    carried: list
    #: Makes all rows of a call from an iterator of tuples of cells.
    make: Any

    def plain_fields(self):
        return [mapped.field for mapped in self.fields]


def row_type(cls, where):
    """What is known of a row class: one with `@row` or `@branch`, a dataclass, or a NamedTuple."""
    known = cls.__dict__.get("__millstream_row__") if inspect.isclass(cls) else None
    if known is not None:
        return known
    if inspect.isclass(cls) and (dataclasses.is_dataclass(cls) or hasattr(cls, "_fields")):
        cls.__millstream_row__ = _read(cls, cls.__name__)
        return cls.__millstream_row__
    name = getattr(cls, "__name__", repr(cls))
    raise DeclarationError(f"{where}: {name} is no row: put @row on its class, or make it a dataclass or NamedTuple")


def _read(cls, where):
    fields, carried = [], []
    names = [item.name for item in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else list(cls._fields)
    found = hints(cls, where)
    for name in names:
        field, extras = scalar(name, found[name], where)
        if field is None:
            raise DeclarationError(
                f"{where}.{name} is {shown(found[name])}, which no cell can hold: a field is a bool, int, float, str, bytes, "
                "Time, Json or JsonText, or one of them `| None`"
            )
        fields.append(MappedField(field, _place(where, field, extras)))
        carried.append(next((extra for extra in extras if isinstance(extra, CarriedFrom)), CarriedFrom("same", name)))
    if dataclasses.is_dataclass(cls):
        make = lambda cells: [cls(*row) for row in cells]  # noqa: E731
    else:
        make = lambda cells: map(tuple.__new__, _forever(cls), cells)  # noqa: E731
    return RowType(cls, fields, carried, make)


def _forever(cls):
    while True:
        yield cls


def _place(where, field, extras):
    places = [extra for extra in extras if isinstance(extra, Place)]
    if len(places) > 1:
        raise DeclarationError(f"{where}.{field.name} has two places: {places[0].kind} and {places[1].kind}")
    if not places:
        return Place("value", "/" + field.name.replace("~", "~0").replace("/", "~1"))
    allowed = PLACE_TYPES.get(places[0].kind)
    if allowed and field.type not in allowed:
        these = " or ".join(PYTHON[type] for type in allowed)
        raise DeclarationError(f"{where}.{field.name} is {PYTHON[field.type]}, but {places[0].kind} holds {these}")
    return places[0]


def shown(hint):
    """A type hint as people write it."""
    return hint.__name__ if inspect.isclass(hint) else str(hint).replace("typing.", "")


def _twice(cls):
    """A name that the class's source annotates twice: Python itself keeps the last and says nothing."""
    import ast
    import textwrap

    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):
        return None
    seen = set()
    for statement in tree.body[0].body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            if statement.target.id in seen:
                return statement.target.id
            seen.add(statement.target.id)
    return None


def _tuple_class(cls):
    """The class with its annotations as the members of a tuple: rows are made by thousands, and tuples are cheapest."""
    twice = _twice(cls)
    if twice:
        raise DeclarationError(f"{cls.__name__} declares the field {twice!r} twice")
    annotations = inspect.get_annotations(cls)
    defaults = {name: cls.__dict__[name] for name in annotations if name in cls.__dict__}
    try:
        base = namedtuple(cls.__name__, annotations, defaults=None)
    except ValueError as error:
        raise DeclarationError(f"{cls.__name__}: {error}")
    if list(defaults) != list(annotations)[len(annotations) - len(defaults) :]:
        raise DeclarationError(f"{cls.__name__}: a field without a default follows one that has a default")
    base.__new__.__defaults__ = tuple(defaults.values())
    members = {
        name: member
        for name, member in cls.__dict__.items()
        if name not in defaults and name not in ("__dict__", "__weakref__", "__slots__")
    }
    made = type(cls.__name__, (base,), {**members, "__slots__": ()})
    made.__qualname__ = cls.__qualname__
    return made


@dataclass_transform(frozen_default=True)
def row(cls=None, *, name=None):
    """Makes a class a row: what a plugin reads, or keeps in a store. Its annotations are the fields."""

    def decorate(cls):
        made = _tuple_class(cls)
        made.__millstream_name__ = name
        made.__millstream_row__ = _read(made, made.__name__)
        return made

    return decorate if cls is None else decorate(cls)


@dataclass_transform(frozen_default=True)
def branch(cls=None, *, name=None, value="same"):
    """Makes a class a branch: what a plugin emits. Without fields a row goes on as it is; with fields they are written
    into its value, or make a value of their own with `value="new"`."""
    if value not in ("same", "new"):
        raise DeclarationError(f"the value of a branch is \"same\" or \"new\", not {value!r}")

    def decorate(cls):
        made = _tuple_class(cls)
        made.__millstream_row__ = _read(made, made.__name__)
        made.__millstream_branch__ = (name or kebab(made.__name__), value)
        return made

    return decorate if cls is None else decorate(cls)
