"""Benchmarks: they time the engine beside transformers' own code, and check that both give the same answers."""

from deeplayer_cli.bench.roofline import PeakRates, RooflineLimit, roofline
from deeplayer_cli.bench.suites import SUITES, BenchPlan
from deeplayer_cli.bench.timing import Result, Spread, measure

__all__ = ["SUITES", "BenchPlan", "PeakRates", "Result", "RooflineLimit", "Spread", "measure", "roofline"]
