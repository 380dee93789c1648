"""The contract's records, and what a plugin may ask of its host.

In a component they are the bindings that are made of the contract. Elsewhere, as in a unit test of a plugin, they are
classes of the same shape, log lines go to stderr and there are no stores of a host.
"""

import sys
from dataclasses import dataclass
from enum import Enum

try:
    from componentize_py_types import Err
    from wit_world.imports import log, metrics, output, schema, table

    IN_COMPONENT = True
except ModuleNotFoundError:
    IN_COMPONENT = False

if IN_COMPONENT:
    Column, Table = table.Column, table.Table
    Emitted, Failure, Outputs = output.Emitted, output.Failure, output.Outputs
    Level, write_log = log.Level, log.write
    update_metric = metrics.update
    try:
        from wit_world.imports import state
    except ImportError:
        # An aggregator has no stores.
        state = None
else:
    state = schema = None

    @dataclass
    class Column:
        nulls: bytes
        ends: bytes
        data: bytes

    @dataclass
    class Table:
        rows: int
        columns: list

    @dataclass
    class Emitted:
        origins: bytes
        columns: list

    @dataclass
    class Failure:
        row: int
        message: str

    @dataclass
    class Outputs:
        branches: list
        failed: list

    class Level(Enum):
        TRACE = 0
        DEBUG = 1
        INFO = 2
        WARN = 3
        ERROR = 4

    class Err(Exception):
        def __init__(self, value):
            super().__init__(value)
            self.value = value

    def write_log(level, message):
        print(f"{level.name}: {message}", file=sys.__stderr__)

    def update_metric(metric, value):
        pass
