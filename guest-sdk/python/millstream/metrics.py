"""Numbers that operators see beside the host's own.

What they are told during a call reaches the host once, at its end, and only if the call succeeds.
"""

from .contract import update_metric


class Counter:
    """A number that only grows."""

    KIND = "counter"

    def __init__(self):
        self._sum = 0.0

    def add(self, value=1):
        """Adds `value`, which must not be negative."""
        if value < 0:
            raise ValueError(f"a counter only grows, but {value} was added")
        self._sum += value

    def take(self):
        told, self._sum = ([self._sum] if self._sum else []), 0.0
        return told


class Gauge:
    """A number of which the last value counts."""

    KIND = "gauge"

    def __init__(self):
        self._told = []

    def set(self, value):
        """Sets it."""
        self._told = [float(value)]

    def take(self):
        told, self._told = self._told, []
        return told


class Histogram(Gauge):
    """A distribution of values."""

    KIND = "histogram"

    def observe(self, value):
        """Counts a value."""
        self._told.append(float(value))


METRICS = (Counter, Gauge, Histogram)


def flush(metrics):
    """Tells the host what a call that succeeded told."""
    for number, metric in enumerate(metrics):
        for value in metric.take():
            update_metric(number, value)


def discard(metrics):
    """Forgets what a call told that failed."""
    for metric in metrics:
        metric.take()
