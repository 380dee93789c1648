"""What a pipeline may set: read from JSON with all mistakes at once, and described by a JSON Schema."""

import dataclasses
import difflib
import enum
import json
import re
from datetime import timedelta
from typing import Annotated, Any, Literal, get_args, get_origin

from .errors import DeclarationError, Reject
from .fields import hints, parse, shown

INTEGER_MIN, INTEGER_MAX = -(1 << 63), (1 << 63) - 1
UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
DURATION = re.compile("([0-9]+) ?(ms|s|m|h|d)")
SCHEMA = "https://json-schema.org/draft/2020-12/schema"


class _Pointer:
    pass


Pointer = Annotated[str, _Pointer()]
"""The path of a field: a JSON Pointer, "" for the whole value."""


class _Wrong(Exception):
    """Said already, among the problems."""


def milliseconds(text):
    """The milliseconds of a duration such as "30s"; None if it is none."""
    found = DURATION.fullmatch(text)
    return int(found[1]) * UNITS_MS[found[2]] if found else None


@dataclasses.dataclass
class Setting:
    """One setting: a member of an object."""

    name: str
    description: str
    kind: Any
    default: Any = dataclasses.MISSING


def setting(name, hint, default, where):
    """The setting of a type hint; a text in `Annotated` describes it."""
    base, optional, extras = parse(hint)
    description = next((extra for extra in extras if isinstance(extra, str)), "")
    kind = _kind(base, extras, f"{where}.{name}")
    return Setting(name, description, Optional(kind) if optional else kind, default)


def _kind(base, extras, where):
    if any(isinstance(extra, _Pointer) for extra in extras):
        return PointerKind()
    simple = {bool: Boolean, int: Integer, float: Float, str: Text, timedelta: Duration, Any: Anything}
    if base in simple:
        return simple[base]()
    origin, arguments = get_origin(base), get_args(base)

    def inner(hint):
        base, optional, extras = parse(hint)
        kind = _kind(base, extras, where)
        return Optional(kind) if optional else kind

    if origin is Literal and all(isinstance(argument, str) for argument in arguments):
        return Choice({argument: argument for argument in arguments})
    if isinstance(base, type) and issubclass(base, enum.Enum):
        return Choice({str(choice.value): choice for choice in base})
    if origin is list:
        return List(inner(arguments[0]))
    if origin is dict and arguments[0] is str:
        return Map(inner(arguments[1]))
    if dataclasses.is_dataclass(base):
        return Object.of(base)
    raise DeclarationError(
        f"{where} is {shown(base)}, which cannot be a setting: a setting is a bool, int, float, str, Pointer, timedelta, "
        "Literal of texts, Enum, Any, a list or dict[str, …] of one, a dataclass, or one of them `| None`"
    )


def expected(what, found, at, problems):
    text = json.dumps(found, ensure_ascii=False)
    if len(text) > 60:
        text = text[:57] + "..."
    problems.append(problem(at, f"must be {what}, but is {text}"))
    raise _Wrong


def problem(at, text):
    return f"`{at}` {text}" if at else f"the configuration {text}"


def unknown(what, name, names):
    near = difflib.get_close_matches(name, names, 1)
    if near:
        return f"{what}: did you mean `{near[0]}`?"
    return f"{what}: there are {', '.join(names)}" if names else f"{what}: there are none"


class Boolean:
    schema = {"type": "boolean"}

    def read(self, value, at, problems):
        return value if isinstance(value, bool) else expected("true or false", value, at, problems)


class Integer:
    schema = {"type": "integer", "minimum": INTEGER_MIN, "maximum": INTEGER_MAX}

    def read(self, value, at, problems):
        if isinstance(value, int) and not isinstance(value, bool) and INTEGER_MIN <= value <= INTEGER_MAX:
            return value
        return expected(f"an integer from {INTEGER_MIN} to {INTEGER_MAX}", value, at, problems)


class Float:
    schema = {"type": "number"}

    def read(self, value, at, problems):
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        return expected("a number", value, at, problems)


class Text:
    schema = {"type": "string"}

    def read(self, value, at, problems):
        return value if isinstance(value, str) else expected("a text", value, at, problems)


class PointerKind:
    schema = {"type": "string", "format": "json-pointer"}

    def read(self, value, at, problems):
        if isinstance(value, str) and (not value or value.startswith("/")):
            if all(rest.startswith(("0", "1")) for rest in value.split("~")[1:]):
                return value
        return expected('a path such as "/total_amount" (a JSON Pointer)', value, at, problems)


class Duration:
    schema = {"type": "string", "pattern": "^[0-9]+ ?(ms|s|m|h|d)$"}

    def read(self, value, at, problems):
        found = milliseconds(value) if isinstance(value, str) else None
        if found is None:
            expected('a duration such as "30s" or "1h" (ms, s, m, h or d)', value, at, problems)
        return timedelta(milliseconds=found)


class Anything:
    schema = {}

    def read(self, value, at, problems):
        return value


class Optional:
    def __init__(self, kind):
        self.kind = kind
        self.schema = {"anyOf": [kind.schema, {"type": "null"}]}

    def read(self, value, at, problems):
        return None if value is None else self.kind.read(value, at, problems)


class Choice:
    def __init__(self, choices):
        self.choices = choices
        self.schema = {"type": "string", "enum": list(choices)}

    def read(self, value, at, problems):
        names = list(self.choices)
        if not isinstance(value, str):
            expected(f"one of {', '.join(names)}", value, at, problems)
        if value not in self.choices:
            problems.append(problem(at, unknown(f"cannot be {json.dumps(value, ensure_ascii=False)}", value, names)))
            raise _Wrong
        return self.choices[value]


class List:
    def __init__(self, kind):
        self.kind = kind
        self.schema = {"type": "array", "items": kind.schema}

    def read(self, value, at, problems):
        if not isinstance(value, list):
            expected("a list", value, at, problems)
        return _all(((item, f"{at}.{index}") for index, item in enumerate(value)), self.kind, problems)


class Map:
    def __init__(self, kind):
        self.kind = kind
        self.schema = {"type": "object", "additionalProperties": kind.schema}

    def read(self, value, at, problems):
        if not isinstance(value, dict):
            expected("an object", value, at, problems)
        return dict(zip(value, _all(((item, f"{at}.{name}") for name, item in value.items()), self.kind, problems)))


def _all(items, kind, problems):
    found, wrong = [], False
    for item, at in items:
        try:
            found.append(kind.read(item, at, problems))
        except _Wrong:
            wrong = True
    if wrong:
        raise _Wrong
    return found


class Object:
    def __init__(self, settings, make, description=""):
        self.settings = settings
        self.make = make
        properties, required = {}, []
        for one in settings:
            schema = dict(one.kind.schema)
            if one.description:
                schema["description"] = one.description
            if isinstance(one.default, (bool, int, float, str)) and not isinstance(one.default, enum.Enum):
                schema["default"] = one.default
            if one.default is dataclasses.MISSING and not isinstance(one.kind, Optional):
                required.append(one.name)
            properties[one.name] = schema
        self.schema = {"type": "object", "properties": properties, "additionalProperties": False}
        if required:
            self.schema["required"] = required
        if description:
            self.schema["description"] = description

    @staticmethod
    def of(cls):
        found = hints(cls, cls.__name__)
        settings = []
        for member in dataclasses.fields(cls):
            default = member.default
            if member.default_factory is not dataclasses.MISSING:
                default = member.default_factory
            settings.append(setting(member.name, found[member.name], default, cls.__name__))
        return Object(settings, cls)

    def read(self, value, at, problems):
        if not isinstance(value, dict):
            expected("an object", value, at, problems)
        names, members, wrong = [one.name for one in self.settings], {}, False
        path = f"{at}." if at else ""
        for name in value:
            if name not in names:
                problems.append(problem(path + name, unknown("is not a setting", name, names)))
        for one in self.settings:
            try:
                if one.name in value:
                    members[one.name] = one.kind.read(value[one.name], path + one.name, problems)
                elif one.default is not dataclasses.MISSING:
                    members[one.name] = one.default() if callable(one.default) else one.default
                elif isinstance(one.kind, Optional):
                    members[one.name] = None
                else:
                    problems.append(problem(path + one.name, "is missing"))
                    wrong = True
            except _Wrong:
                wrong = True
        if wrong:
            raise _Wrong
        return self.make(**members)

    def schema_text(self):
        """The JSON Schema of a whole configuration; empty if there is nothing to configure."""
        if not self.settings:
            return ""
        return json.dumps({**self.schema, "$schema": SCHEMA}, ensure_ascii=False)


def parse_settings(settings, text):
    """The members that JSON text sets.

    Raises `Reject` with everything that is wrong with it."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise Reject(f"the configuration is not JSON: {error}") from None
    problems = []
    try:
        made = settings.read(value, "", problems)
    except _Wrong:
        made = None
    if problems:
        raise Reject("; ".join(problems))
    return made
