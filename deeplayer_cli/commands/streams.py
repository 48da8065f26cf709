"""The standard streams of the process: closed ones, full ones, and encodings that lack a character."""

from __future__ import annotations

import io
import os
import sys

from deeplayer_cli.errors import writing


def prepare() -> None:
    """Make the standard streams safe to use.

    A closed stream gets a stand-in, so that no file that is opened later takes its number: reading from a closed stdin
    and writing to a closed stdout fail, and messages to a closed stderr are dropped. Characters that an encoding lacks
    are written as escapes.
    """
    for number, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # the lowest free number, and so this one
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def finish() -> None:
    """Flush stdout.

    Raises:
        DeeplayerError: stdout is closed, or its disk is full.
        BrokenPipeError: the reader has closed the pipe.
    """
    with writing("stdout"):
        sys.stdout.flush()


def abandon_stdout() -> None:
    """Drop the unwritten rest of stdout; otherwise Python flushes it at exit, and fails again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
