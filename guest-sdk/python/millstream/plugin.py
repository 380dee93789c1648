"""What every kind of plugin has: settings, stores, metrics and a signature."""

import copy
import dataclasses
import inspect

from . import metrics
from .errors import DeclarationError
from .fields import Place, hints, parse, row_type, shown
from .schema import MetricSchema, Signature
from .settings import Object, setting
from .store import Store, StoreOf

#: The plugins of the module that is being imported.
defined = []


class Definition:
    """A plugin's class, taken apart when it is defined, so that all of this is in the component's snapshot."""

    kind = None

    def __init__(self, cls):
        self.cls = cls
        self.summary = inspect.cleandoc(cls.__doc__).split("\n")[0] if cls.__doc__ else ""
        self.settings = []
        #: (attribute, how it is made, what is declared, key, value)
        self.stores = []
        #: (attribute, class, description)
        self.metrics = []
        self._attributes()
        self.has_stores = bool(self.stores)
        self.inputs, self.branches = [], []

    def _attributes(self):
        cls, found = self.cls, hints(self.cls, self.cls.__name__)
        for name in inspect.get_annotations(cls):
            base, _, extras = parse(found[name])
            default = cls.__dict__.get(name, dataclasses.MISSING)
            where = f"{cls.__name__}.{name}"
            if isinstance(base, StoreOf) or base is Store:
                if base is Store:
                    raise DeclarationError(f"{where}: say what it holds, as `Store[int, int]`")
                made = default if isinstance(default, Store) else Store()
                self.stores.append((name, made, *base.declare(name, made, where)))
            elif base in metrics.METRICS:
                description = next((extra for extra in extras if isinstance(extra, str)), "")
                self.metrics.append((name, base, description))
            else:
                if isinstance(default, (list, dict, set)):
                    default = (lambda value: lambda: copy.deepcopy(value))(default)
                self.settings.append(setting(name, found[name], default, cls.__name__))
        self.object = Object(self.settings, self._make)

    def _make(self, **members):
        plugin = self.cls.__new__(self.cls)
        plugin.__dict__.update(members)
        return plugin

    def configure(self, members):
        """An instance with its signature; runs the plugin's own `__post_init__`."""
        plugin = members
        stores, told = [], []
        for name, made, declared, key, value in self.stores:
            store = Store(name=declared.name, ordered=declared.ordered)
            store._key, store._value = key, value
            plugin.__dict__[name] = store
            stores.append(store)
        for name, cls, _ in self.metrics:
            metric = cls()
            plugin.__dict__[name] = metric
            told.append(metric)
        signature = Signature(
            copy.deepcopy(self.inputs),
            copy.deepcopy([stream for stream, _ in self.branches]),
            copy.deepcopy([declared for _, _, declared, _, _ in self.stores]),
            [MetricSchema(name, description, cls.KIND) for name, cls, description in self.metrics],
        )
        if hasattr(plugin, "__post_init__"):
            plugin.__post_init__()
        if hasattr(plugin, "signature"):
            plugin.signature(signature)
            self._check(signature)
        for number, store in enumerate(stores):
            store._number = number
        return plugin, signature, stores, told

    def _check(self, signature):
        """Whether the code can work with a signature that the plugin changed."""
        same = len(signature.inputs) == len(self.inputs) and len(signature.branches) == len(self.branches)
        if not same or len(signature.stores) != len(self.stores):
            raise DeclarationError("`signature` added or took away inputs, branches or stores, which the code has not")
        derived = [*self.inputs, *(stream for stream, _ in self.branches)]
        for stream, own in zip([*signature.inputs, *signature.branches], derived):
            if len(stream.fields) != len(own.fields):
                raise DeclarationError(f"`signature` changed the number of the fields of {own.name!r}")
            for field, known in zip(stream.fields, own.fields):
                if not field.field.same_type(known.field):
                    raise DeclarationError(f"`signature` changed the type of the field {known.name!r} of {own.name!r}")
                if not isinstance(field.place, Place):
                    raise DeclarationError(f"the place of {known.name!r} is {field.place!r}: write `value(\"/path\")`")


def define(kind, cls):
    """Takes a plugin's class apart and remembers it."""
    if not inspect.isclass(cls):
        raise DeclarationError(f"@{kind.kind} stands above a class, not {shown(cls)}")
    definition = kind(cls)
    defined.append(definition)
    # So that a unit test makes one as any class: `Split(threshold=3)`.
    cls.__init__ = _init(definition)
    cls.__millstream__ = definition
    return cls


def _init(definition):
    def __init__(self, **members):
        for one in definition.settings:
            if one.name in members:
                value = members.pop(one.name)
            elif one.default is dataclasses.MISSING:
                raise TypeError(f"the setting {one.name!r} is missing")
            else:
                value = one.default() if callable(one.default) else one.default
            self.__dict__[one.name] = value
        if members:
            raise TypeError(f"{definition.cls.__name__} has no settings {list(members)}")
        for name, made, declared, key, value in definition.stores:
            self.__dict__[name] = Store(name=declared.name, ordered=declared.ordered)
            self.__dict__[name]._key, self.__dict__[name]._value = key, value
        for name, cls, _ in definition.metrics:
            self.__dict__[name] = cls()
        if hasattr(self, "__post_init__"):
            self.__post_init__()

    return __init__


def branches_of(hint, where):
    """The branches of a type hint, `High | Low | None` or `Iterator[High]`: of each its stream and class."""
    from typing import Union, get_args, get_origin
    import collections.abc
    import types

    from .schema import Stream

    classes = []

    def gather(hint):
        origin = get_origin(hint)
        if origin in (Union, types.UnionType):
            for argument in get_args(hint):
                gather(argument)
        elif origin in (list, tuple, collections.abc.Iterator, collections.abc.Iterable, collections.abc.Generator):
            arguments = [argument for argument in get_args(hint) if argument is not Ellipsis]
            for argument in arguments[:1] if origin is not tuple else arguments:
                gather(argument)
        elif hint is not type(None) and hint not in classes:
            classes.append(hint)

    gather(hint)
    if not classes:
        raise DeclarationError(f"{where} emits no branch: say what it returns, as `-> High | Low`")
    found = []
    for cls in classes:
        named = getattr(cls, "__millstream_branch__", None)
        if named is None:
            raise DeclarationError(f"{where} returns {shown(cls)}, which is no branch: put @branch on its class")
        name, value = named
        if any(stream.name == name for stream, _ in found):
            raise DeclarationError(f"{where}: there are two branches named {name!r}")
        found.append((Stream(name, row_type(cls, where).fields, value), cls))
    return found


def inputs_of(hint, where):
    """The inputs of a type hint: a row, or several `Ride | Zone`. Of each its stream and what is known of the row."""
    from typing import Union, get_args, get_origin
    import types

    from .errors import kebab
    from .schema import Stream

    several = get_origin(hint) in (Union, types.UnionType)
    found = []
    for cls in get_args(hint) if several else [hint]:
        row = row_type(cls, where)
        given = getattr(cls, "__millstream_name__", None)
        name = given or (kebab(cls.__name__) if several else "input")
        if any(stream.name == name for stream, _ in found):
            raise DeclarationError(f"{where}: there are two inputs named {name!r}")
        found.append((Stream(name, row.fields), row))
    return found
