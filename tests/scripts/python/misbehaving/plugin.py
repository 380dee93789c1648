"""Does what each row says."""

import datetime
import os
import random
import socket
import subprocess
import sys
import threading
import time
from typing import Annotated

from millstream import Reject, Store, branch, processor, row

kept = []


@row
class Row:
    what: str


@branch
class Plain: ...


@branch(value="new")
class Typed:
    number: int
    text: str
    maybe: float | None = None


@processor
class Misbehaving:
    refuse: Annotated[bool, "Whether the configuration is refused by a fault."] = False

    def __post_init__(self):
        if self.refuse:
            {}["absent"]

    def process(self, row: Row) -> Plain | Typed:
        return getattr(self, row.what.replace("-", "_"))(row)

    def plain(self, row):
        return Plain()

    def nothing(self, row):
        return None

    def many(self, row):
        return [Typed(number, "é") for number in range(3)]

    def generator(self, row):
        yield Plain()
        yield Typed(7, "")

    def generator_fails(self, row):
        yield Plain()
        raise ValueError("half-way")

    def divides(self, row):
        return Typed(1 // len(kept[:0]), "")

    def rejects(self, row):
        raise Reject("not wanted")

    def chained(self, row):
        try:
            int("x")
        except ValueError as error:
            raise RuntimeError("cannot read it") from error

    def returns_number(self, row):
        return 5

    def returns_text(self, row):
        return "plain"

    def wrong_cell(self, row):
        return Typed("seven", "")

    def none_cell(self, row):
        return Typed(None, "")

    def great_cell(self, row):
        return Typed(1 << 63, "")

    def half_character(self, row):
        return Typed(1, "\ud800")

    def no_such_field(self, row):
        return Typed(number=1, txt="")

    def clock(self, row):
        return Typed(int(time.time()), "")

    def now(self, row):
        return Typed(1, str(datetime.datetime.now()))

    def randomness(self, row):
        return Typed(random.randint(1, 6), "")

    def file(self, row):
        return Typed(1, open("/etc/passwd").read())

    def connects(self, row):
        socket.create_connection(("example.org", 80))

    def sleeps(self, row):
        time.sleep(1)

    def forks(self, row):
        os.fork()

    def runs(self, row):
        subprocess.run(["true"])

    def thread(self, row):
        threading.Thread(target=print).start()

    def late_import(self, row):
        import sqlite3

    def exits(self, row):
        sys.exit("enough")

    def recursion(self, row):
        return self.recursion(row)

    def memory(self, row):
        return Typed(len(b"x" * (1 << 30)), "")

    def loops(self, row):
        while True:
            pass

    def prints(self, row):
        line = "x" * 999
        for _ in range(100_000):
            print(line)
        return Plain()

    def keeps(self, row):
        # References to rows of earlier calls are the plugin's own; the memory is not the host's any more.
        kept.append(row)
        return Typed(len({id(one) for one in kept}), "".join(one.what for one in kept[:3]))
