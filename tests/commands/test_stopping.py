"""Signals that come faster than they are handled."""

from __future__ import annotations

import subprocess
import sys

import pytest

_TOGETHER = """
import os, signal
from deeplayer_cli.commands.stopping import stoppable
with stoppable():
    signal.pthread_sigmask(signal.SIG_BLOCK, {2, 15})
    for number in NUMBERS:
        os.kill(os.getpid(), number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {2, 15})
    print("goes on")
"""


@pytest.mark.parametrize(("numbers", "code"), [((2, 15), -2), ((2,), 0), ((15,), 0)])
def test_two_signals_at_one_moment_end_the_run_at_once(numbers: tuple[int, ...], code: int) -> None:
    """The second one is no traceback, and is not ignored."""
    done = subprocess.run(
        [sys.executable, "-c", _TOGETHER.replace("NUMBERS", repr(numbers))], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (code, "" if code else "goes on\n")
    assert done.stderr == "deeplayer: finishing the batch; a second signal stops at once\n"
