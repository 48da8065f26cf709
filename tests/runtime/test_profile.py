"""Where the time of a run went, on a clock that the test turns."""

from __future__ import annotations

import time
from unittest.mock import patch

import pytest
import torch

from deeplayer_cli.engine.stopwatch import Stopwatch
from deeplayer_cli.runtime.profile import Profile


def test_every_second_belongs_to_one_phase():
    clock = [0.0]

    def spend(seconds):
        clock[0] += seconds

    with patch.object(time, "perf_counter", lambda: clock[0]):
        watch, begun = Stopwatch(), clock[0]
        spend(1)  # before, between and behind the phases: the rest
        with watch.timing("wait for images"):
            spend(2)
        with watch.timing("suffix"):
            spend(4)
            with watch.timing("select"):
                spend(8)
            spend(16)
        spend(32)
        with watch.timing("decode"):
            spend(64)
        spend(128)
        profile = Profile.from_run(watch.seconds, {"tile": 5.0}, 510, 51, clock[0] - begun, torch.device("cpu"))
    assert profile.seconds == {"wait for images": 2, "suffix": 20, "select": 8, "decode": 64, "rest": 161}
    assert profile.device_idle == pytest.approx((2 + 161) / 255)
    assert (profile.rows_per_second, profile.tokens_per_second) == (51 / 255, 2.0)
    assert str(profile).startswith("rest 63.1%, decode 25.1%, suffix 7.8%, select 3.1%, wait for images 0.8%;")
