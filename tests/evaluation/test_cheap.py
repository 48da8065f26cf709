"""The table of cheap methods is what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

import deeplayer_cli.evaluation

FOLDER = Path(deeplayer_cli.evaluation.__file__).parent
ROWS = [line for line in (FOLDER / "README.md").read_text().splitlines() if line.startswith("| `")]
FLOPS = {
    "deep-layer": ("24", "deep-layer 0.1"),
    "primed": ("24", "primed 0.1"),
    "primed@layer=5": ("20", "primed 0.1"),
    "freeze": ("own", "freeze 0.1"),
    "cascade": ("own", "cascade 0.1"),
    "scout-focus": ("own", "scout-focus 0.15"),
    "dart": ("2", "dart 0.13"),
    "divprune": ("0", "divprune 0.19"),
    "uniform@layer=0": ("0", "uniform 0.19"),
    "freeze@layer=1": ("4", "freeze 0.1"),
    "fastv": ("2", "fastv 0.13"),
}
"""File and name of each method's FLOPs at the 8B's shape."""


def read(name: str) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = orjson.loads((FOLDER / "cheap" / f"{name}.json").read_bytes())
    return content


def line(split: str, method: str) -> dict[str, Any]:
    (found,) = (one for one in read(split) if one["method"] == method)
    return found


def change(found: dict[str, Any]) -> str:
    value, low, high = (100 * found["difference"][name] for name in ("value", "low", "high"))
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"


def share_of_flops(method: str) -> float:
    name, pruning = FLOPS[method]
    unpruned, *limits = read(f"flops-{name}")
    (found,) = (limit["prefill"] for limit in limits if limit["name"] == pruning)
    return float(found / unpruned["prefill"])


@pytest.mark.parametrize("method", FLOPS)
def test_the_table(method: str) -> None:
    standard, hard = (line(split, method) for split in ("standard", "hard"))
    keep = "1" if method.startswith("freeze") else f"{standard['keep']:g}"
    cells = (f"`{method}`", keep, f"{share_of_flops(method):.1%}", change(standard), change(hard))
    assert f"| {' | '.join(cells)} |" in ROWS
    assert standard["n"] == hard["n"] == 1200 and standard["n_error"] == hard["n_error"] == 0


def test_a_fifth_of_the_flops_keeps_99_percent_and_beats_what_costs_as_much() -> None:
    assert share_of_flops("scout-focus") <= 0.2
    for split in ("standard", "hard"):
        assert line(split, "scout-focus")["retained"] >= 0.99
        for method in FLOPS:
            if share_of_flops(method) <= 0.2 and method != "scout-focus":
                assert line(f"{split}-to-scout-focus", method)["difference"]["high"] < 0


@pytest.mark.parametrize(
    ("flags", "method"),
    [
        ("--keep 0.12 --fallback 0.6", "scout-focus@fallback=0.6"),
        ("--keep auto:0.97 --fallback 0.6", "scout-focus@keep=auto:0.97@fallback=0.6"),
    ],
)
def test_the_budgets_by_confidence(flags: str, method: str) -> None:
    (row,) = (line for line in ROWS if line.startswith(f"| `{flags}` |"))
    cells = [change(line(f"{split}-unsure", method)) for split in ("standard", "hard")]
    assert row.endswith(f"| {' | '.join(cells)} |")


@pytest.mark.parametrize(
    ("keep", "mean", "fixed"), [("auto:0.987:0.03:0.3", 10, 0.1115), ("auto:0.995:0.05:0.45", 15, 0.167)]
)
def test_the_focus_that_follows_the_row(keep: str, mean: int, fixed: float) -> None:
    unpruned, *limits = read("flops-auto")
    of_keep = {float(one["name"].split()[1]): one["prefill"] / unpruned["prefill"] for one in limits}
    found = [line(f"{split}-auto-{mean}", f"scout-focus@keep={keep}") for split in ("standard", "hard")]
    flops = [np.interp(one["kept"], list(of_keep), list(of_keep.values())) for one in found]
    cells = (
        f"`--keep {keep}`",
        "; ".join(f"{one['kept']:.1%}" for one in found),
        "; ".join(f"{share:.1%}" for share in flops),
        f"`{fixed}`, {of_keep[fixed]:.1%}",
        *map(change, found),
    )
    assert f"| {' | '.join(cells)} |" in ROWS
    assert max(flops) < 0.2 and max(flops) < of_keep[fixed]
    assert all(one["n"] == 4000 and one["n_error"] == 0 for one in found)
    assert sum(one["difference"]["low"] > 0 for one in found) == 1


def test_the_scouts_that_were_chosen_do_not_hold() -> None:
    content = orjson.loads((FOLDER / "cheap" / "scouts.json").read_bytes())
    assert len(content["selection"]["lines"]) == 77
    chosen = [one[split]["to scout-focus"] for one in content["report"][0]["lines"] for split in ("standard", "hard")]
    differences = [one for one in chosen if one is not None]
    assert len(differences) == 12 and all(one["low"] < 0 < one["high"] for one in differences)
