"""How fast, against what, and whether the answers were the same: all in one run, side by side."""

from deeplayer_cli.bench.roofline import PeakRates, RooflineLimit, roofline
from deeplayer_cli.bench.suites import SUITES, BenchPlan
from deeplayer_cli.bench.timing import Result, Spread, measure

__all__ = ["SUITES", "BenchPlan", "PeakRates", "Result", "RooflineLimit", "Spread", "measure", "roofline"]
