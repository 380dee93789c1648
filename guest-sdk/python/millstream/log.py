"""`logging`, `print` and stderr become lines of the plugin's log."""

import io
import logging
import sys

from .contract import Level, write_log

#: Lines that a call hands to the host, which shows fewer; a flood is to cost little.
LINES_OF_CALL_MAX = 1000
#: Bytes of a line that the host keeps, and some more, so that it sees that the line was longer.
LINE_CHARACTERS_MAX = 5000

LEVELS = {logging.DEBUG: Level.DEBUG, logging.INFO: Level.INFO, logging.WARNING: Level.WARN}
_lines = 0
_left_out = 0


def line(level, text):
    """Writes a line, unless this call has written too many."""
    global _lines, _left_out
    if _lines >= LINES_OF_CALL_MAX:
        _left_out += 1
        return
    _lines += 1
    write_log(level, text[:LINE_CHARACTERS_MAX])


def end_call():
    """Says how many lines were left out."""
    global _lines, _left_out
    left_out, _lines, _left_out = _left_out, 0, 0
    if left_out:
        write_log(Level.WARN, f"{left_out} more lines of this call are left out")


class Handler(logging.Handler):
    """Takes what `logging` is told."""

    def emit(self, record):
        try:
            text = self.format(record)
            if record.name != "root":
                text = f"{record.name}: {text}"
        except Exception as error:
            text = f"a log line cannot be formatted: {error}"
        line(LEVELS.get(record.levelno // 10 * 10, Level.ERROR if record.levelno >= 40 else Level.TRACE), text)


class Lines(io.TextIOBase):
    """stdout or stderr, cut into lines. Of a line without an end only as much is kept as a line may have."""

    encoding = "utf-8"

    def __init__(self, level):
        self._level = level
        self._open = ""

    def writable(self):
        return True

    def write(self, text):
        if not isinstance(text, str):
            raise TypeError(f"a text is written, not {type(text).__name__}")
        start = 0
        while (end := text.find("\n", start)) >= 0:
            line(self._level, self._open + text[start : min(end, start + LINE_CHARACTERS_MAX)])
            self._open = ""
            start = end + 1
        self._open = (self._open + text[start : start + LINE_CHARACTERS_MAX])[:LINE_CHARACTERS_MAX]
        return len(text)

    def flush(self):
        pass


def install():
    """From here on."""
    root = logging.getLogger()
    root.handlers[:] = [Handler()]
    root.setLevel(logging.DEBUG)
    logging.raiseExceptions = False
    sys.stdout = Lines(Level.INFO)
    sys.stderr = Lines(Level.WARN)
