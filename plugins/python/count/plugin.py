"""Counts the records of a group."""

from millstream import aggregator, branch


@branch
class Counted:
    count: int


@aggregator
class Count:
    def start(self) -> int:
        return 0

    def add(self, count: int) -> int:
        return count + 1

    def merge(self, count: int, later: int) -> int:
        return count + later

    def finish(self, count: int) -> Counted:
        return Counted(count)
