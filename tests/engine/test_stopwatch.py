"""Phases: nothing counts twice, and nothing is lost."""

from __future__ import annotations

import time
from unittest.mock import patch

import torch

from deeplayer_cli.engine.stopwatch import Stopwatch, phase


def test_an_inner_phase_does_not_count_for_the_outer():
    with patch.object(time, "perf_counter", iter([0.0, 1.0, 3.0, 6.0, 10.0, 15.0, 21.0]).__next__):
        watch = Stopwatch()
        with watch.timing("outer"), watch.timing("inner"):  # from 1; from 3 to 6
            pass
        with watch.timing("outer"):  # ended at 10; again from 15 to 21
            pass
    assert watch.seconds == {"outer": 2.0 + 4.0 + 6.0, "inner": 3.0}


def test_a_method_is_a_phase():
    class Runner:
        watch = Stopwatch()

        @phase("run")
        def run(self, much: int) -> int:
            return much + 1

    assert Runner().run(much=1) == 2
    assert list(Runner.watch.seconds) == ["run"]


def test_it_waits_for_its_own_device(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    for device in (torch.device("cuda:1"), torch.device("cpu"), None):
        with Stopwatch(device).timing("any"):
            pass
    assert waited == [torch.device("cuda:1")] * 2
