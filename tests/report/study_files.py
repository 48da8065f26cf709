"""A small study on disk: outcomes of two splits, and what the lines cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deeplayer_cli.evaluation.compare import MethodRun
from deeplayer_cli.evaluation.line_costs import LineCost, costs_json
from deeplayer_cli.evaluation.outcomes import outcomes_json

if TYPE_CHECKING:
    from pathlib import Path

IMAGES = tuple(f"{number}.png" for number in range(10) for _ in range(2))

COSTS = {  # label, keep, layer: FLOPs of the language model, seconds of two rounds
    ("none", 1.0, None): (1.0, (10.0, 12.0)),
    ("scout-focus", 0.15, 5): (0.2, (3.0, 2.0)),
    ("scout-focus", 0.3, 5): (0.35, (4.0, 4.5)),
    ("divprune", 0.1, 0): (0.1, (1.5, 1.6)),
    ("divprune", 0.2, 0): (0.2, (2.4, 2.5)),
    ("d2pruner", 0.1, 2): (0.4, (4.0, 4.0)),
    ("d2pruner", 0.1, 6): (0.8, (8.0, 8.0)),
    ("deep-layer-mis@layer=2", 0.1, 2): (0.4, (4.0, 4.0)),
    ("deep-layer-mis", 0.1, 6): (0.8, (8.0, 8.0)),
    ("freeze", 0.1, 3): (0.45, (5.0, 5.0)),
}

WRONG = {"none": 1, "scout-focus": 2, "divprune": 8}  # numbers of wrong rows; the others have 5


def run_of(label: str, keep: float, layer: int | None, n_wrong: int) -> MethodRun:
    right = tuple(place >= n_wrong for place in range(len(IMAGES)))
    kept = 1.0 if label in {"none", "freeze"} else keep
    return MethodRun(label, keep, layer, tuple(f"row-{n}" for n in range(20)), IMAGES, right, 20, 0, 0, kept)


def write_study(folder: Path, names: tuple[str, ...] = ("standard", "hard")) -> None:
    for more, name in enumerate(names):
        runs = [run_of(*key, WRONG.get(key[0], 5) + more) for key in COSTS]
        (folder / f"outcomes-{name}.json").write_bytes(outcomes_json(runs))
    costs = [LineCost(*key, 0.5, flops, flops, seconds) for key, (flops, seconds) in COSTS.items()]
    (folder / "costs.json").write_bytes(costs_json(costs, {"tiles": 7}))
