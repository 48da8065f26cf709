"""OpenMP's waiting threads sleep, so that several processes can share the cores of a machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

COMMAND = "bench roofline --model random:mini --tiles 1 --tflops 1 --bandwidth 1"


@pytest.mark.parametrize(("given", "policy"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_waiting_threads_sleep_unless_the_environment_says_otherwise(given, policy):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    command = [sys.executable, "-m", "deeplayer_cli", *COMMAND.split()]
    told = subprocess.run(
        command, env=environment | given | {"OMP_DISPLAY_ENV": "TRUE"}, capture_output=True, text=True, check=True
    )
    found = re.findall(r"OMP_WAIT_POLICY ?= ?'(\w+)'", told.stderr)
    if not found:
        pytest.skip("this torch's OpenMP does not say how its threads wait")
    assert set(found) == {policy}
