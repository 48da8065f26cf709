"""Benchmarks: they time the engine beside transformers' own code, and check that both give the same answers.

suites.py      the cases; subject.py: the image and expressions that they run on; gpu.py: the whole table of a device
timing.py      times cases in turn
limits.py      the smallest possible time of a piece of work; roofline.py: of a model on a device that is not here
photographs.py the image pipeline without a model
fastv.py       FastV as it is usually written; vllm_peer.py: vLLM with the same weights
"""

from deeplayer_cli.bench.gpu import gpu, measure_rates
from deeplayer_cli.bench.limits import PeakRates
from deeplayer_cli.bench.roofline import RooflineLimit, roofline
from deeplayer_cli.bench.suites import SUITES, BenchPlan, require_positions, required_share
from deeplayer_cli.bench.timing import Result, Spread, measure
from deeplayer_cli.bench.vllm_peer import require_vllm

__all__ = [
    "SUITES",
    "BenchPlan",
    "PeakRates",
    "Result",
    "RooflineLimit",
    "Spread",
    "gpu",
    "measure",
    "measure_rates",
    "require_positions",
    "require_vllm",
    "required_share",
    "roofline",
]
