"""What a plugin says of itself: inputs, branches, stores and metrics, as the contract has them.

A plugin's classes say it; where a setting decides, its `signature` method changes it.
"""

from dataclasses import dataclass, field as member

from .errors import DeclarationError

BOOLEAN, INTEGER, FLOAT, TEXT, BYTES, TIME, JSON = "boolean", "integer", "float", "text", "bytes", "time", "json"
PLACES = {"value", "key", "header", "raw_value", "raw_key", "timestamp", "offset", "tombstone"}


@dataclass(frozen=True)
class Place:
    """Where in a record a field lies."""

    kind: str
    at: str = ""


@dataclass
class Field:
    """What a column holds."""

    name: str
    type: str
    optional: bool = False
    #: For JSON, whether a plugin has it as it stands, not parsed.
    as_text: bool = False

    def same_type(self, other):
        return (self.type, self.optional) == (other.type, other.optional)


@dataclass
class MappedField:
    """A field and where it lies."""

    field: Field
    place: Place

    @property
    def name(self):
        return self.field.name


@dataclass
class Stream:
    """An input, or a branch."""

    name: str
    fields: list
    #: Of a branch: "same" or "new".
    value: str = "same"

    def field(self, name):
        """The field of this name."""
        return _named(self.fields, name, f"field of {self.name!r}")


@dataclass
class StoreSchema:
    """A store."""

    name: str
    key: list
    value: list
    ordered: bool = False
    time_to_live_ms: int = 0
    #: By value field: ("same", name) or ("constant", JSON text).
    carry_over: list = member(default_factory=list)


@dataclass
class MetricSchema:
    """A metric: a "counter", "gauge" or "histogram"."""

    name: str
    summary: str
    kind: str


@dataclass
class Signature:
    """All of it."""

    inputs: list
    branches: list
    stores: list = member(default_factory=list)
    metrics: list = member(default_factory=list)

    def input(self, name="input"):
        """The input of this name."""
        return _named(self.inputs, name, "input")

    def branch(self, name):
        """The branch of this name."""
        return _named(self.branches, name, "branch")

    def store(self, name):
        """The store of this name."""
        return _named(self.stores, name, "store")


def _named(items, name, what):
    for item in items:
        if item.name == name:
            return item
    known = ", ".join(item.name for item in items) or "none"
    raise DeclarationError(f"there is no {what} named {name!r}: there are {known}")
