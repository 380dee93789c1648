"""What goes wrong, and how it is told."""

import os
import traceback

SDK_FOLDER = os.path.dirname(__file__)


class Reject(Exception):
    """Refuses a row, or a configuration, with a message for people. Unlike other exceptions it is no fault of the plugin,
    and is shown without a traceback."""


class DeclarationError(Exception):
    """The plugin says of itself what cannot be: `millstream build` shows it."""


class NotGranted(Exception):
    """The plugin asks for what no plugin has: a clock, randomness, files, the network, processes, threads."""


def crash(message):
    """Ends the call at once, for what must not happen: the host takes another instance."""
    from .contract import Level, write_log

    write_log(Level.ERROR, message)
    os.abort()


def told(error):
    """The message of a failure: what happened, then where, the plugin's own frames alone."""
    if isinstance(error, Reject):
        return str(error) or "rejected"
    lines = traceback.format_exception_only(error)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(SDK_FOLDER)]
    for frame in frames:
        frame.filename = short(frame.filename)
    text = "".join(lines + traceback.format_list(frames)).rstrip()
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and not isinstance(cause, Reject):
        text += "\ncaused by " + told(cause)
    return text


def short(path):
    """A file's path without the folder that it is built in."""
    return os.path.relpath(path, "/0") if path.startswith("/0/") else os.path.basename(path)


def kebab(name):
    """`ByZone` and `by_zone` as `by-zone`."""
    out = []
    for at, letter in enumerate(name):
        if letter == "_":
            out.append("-")
            continue
        before = name[at - 1] if at else ""
        after = name[at + 1] if at + 1 < len(name) else ""
        starts = before.islower() or before.isdigit() or (before.isupper() and after.islower())
        if letter.isupper() and before and starts:
            out.append("-")
        out.append(letter.lower())
    return "".join(out)
