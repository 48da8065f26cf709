"""How fast, against what, and whether the answers were the same: all in one run, side by side."""

from deeplayer_cli.bench.roofline import Device, Limit, roofline
from deeplayer_cli.bench.suites import SUITES, Plan
from deeplayer_cli.bench.timing import Result, Spread, measure

__all__ = ["SUITES", "Device", "Limit", "Plan", "Result", "Spread", "measure", "roofline"]
