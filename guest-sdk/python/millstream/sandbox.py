"""What no plugin has, told in Python's own terms.

In a component the clock, files, the network and the rest are not there; an attempt to use them would end the call without
a word of Python. Whatever a module does while it is imported, at build time, is allowed: it becomes part of the component."""

import builtins
import datetime
import functools
import importlib.machinery
import io
import os
import random
import socket  # noqa: F401  so that it is there to be asked for
import sys
import time

from .errors import NotGranted

CLOCK = "a plugin has no clock, so that its results can be repeated: read the record's time from a field with `timestamp`"
SLEEP = "a plugin cannot wait: it is called with records, and answers"
RANDOM = "a plugin has no randomness, so that its results can be repeated: use random.Random(seed) with a seed from the record"
FILES = "a plugin has no files: read them while the module is imported, or pass what is needed as a setting"
NETWORK = "a plugin has no network: what it needs comes in records, tables and settings"
PROCESSES = "a plugin cannot start processes or threads: the host runs as many instances of it as there is work for"

sealed = False


def seal():
    """The component is made: from here on nothing is granted."""
    global sealed
    sealed = True
    sys.meta_path[:] = [_NoImports, *(finder for finder in sys.meta_path if finder is not importlib.machinery.PathFinder)]


class _NoImports:
    """A module that is imported too late."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if importlib.machinery.BuiltinImporter.find_spec(name) or importlib.machinery.FrozenImporter.find_spec(name):
            return None
        raise ModuleNotFoundError(
            f"{name!r} is not part of the component: import it at the top of a module, where `millstream build` sees it", name=name
        )


def _refuse(module, names, message):
    for name in names:
        original = getattr(module, name, None)
        if original is None:
            continue

        def refusing(*args, _original=original, _name=name, **kwargs):
            if sealed:
                raise NotGranted(f"{getattr(module, '__name__', module)}.{_name}: {message}")
            return _original(*args, **kwargs)

        setattr(module, name, functools.wraps(original)(refusing))


def _without_now(base, names):
    members = {"__slots__": (), "__module__": base.__module__, "__qualname__": base.__qualname__}
    for name in names:
        original = getattr(base, name)

        def refusing(cls, *args, _original=original.__func__ if hasattr(original, "__func__") else original, _name=name):
            if sealed:
                raise NotGranted(f"{base.__name__}.{_name}: {CLOCK}")
            return _original(*args)

        members[name] = classmethod(refusing)
    return type(base.__name__, (base,), members)


class _Still:
    """The clock of `logging`, which stamps what it is told."""

    def __getattr__(self, name):
        return getattr(time, name)

    @staticmethod
    def time():
        return 0.0

    @staticmethod
    def time_ns():
        return 0


def install():
    """Puts the refusals in place, before the plugin is imported."""
    import logging

    logging.time = _Still()
    clocks = ["time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time"]
    _refuse(time, [*clocks, "process_time_ns", "thread_time", "clock_gettime", "clock_gettime_ns"], CLOCK)
    _refuse(time, ["sleep"], SLEEP)
    datetime.datetime = _without_now(datetime.datetime, ["now", "utcnow", "today"])
    datetime.date = _without_now(datetime.date, ["today"])
    numbers = ["random", "randint", "randrange", "choice", "choices", "shuffle", "sample", "uniform", "gauss", "randbytes"]
    _refuse(random, [*numbers, "getrandbits", "triangular", "normalvariate", "expovariate"], RANDOM)
    _refuse(os, ["urandom", "getrandom"], RANDOM)
    random._urandom = os.urandom
    files = ["open", "listdir", "scandir", "stat", "lstat", "mkdir", "makedirs", "remove", "unlink", "rename", "rmdir", "walk"]
    _refuse(os, [*files, "access", "readlink", "symlink", "utime", "truncate"], FILES)
    _refuse(builtins, ["open"], FILES)
    _refuse(io, ["open"], FILES)
    _refuse(sys.modules["socket"], ["socket", "create_connection", "getaddrinfo", "gethostbyname", "create_server"], NETWORK)
    for name in ("fork", "forkpty", "system", "popen", "execv", "spawnv", "posix_spawn"):
        setattr(os, name, _absent(f"os.{name}"))
    _threads()


def _absent(name):
    def refusing(*args, **kwargs):
        raise NotGranted(f"{name}: {PROCESSES}")

    return refusing


def _threads():
    import threading

    threading.Thread.start = _absent("Thread.start")
    try:
        import subprocess

        subprocess.Popen.__init__ = _absent("subprocess")
        subprocess.Popen.__del__ = lambda self: None
    except ImportError:
        pass
