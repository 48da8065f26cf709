"""The card's tables are what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

import deeplayer_cli.demo

DEMO = Path(deeplayer_cli.demo.__file__).parent
CARD = (DEMO / "README.md").read_text().splitlines()
SEEDS = SHIPPED, _ = "seed-1", "seed-0"


def measured(seed: str, name: str) -> Any:
    return orjson.loads((DEMO / "measured" / seed / f"{name}.json").read_bytes())


def curve(seed: str) -> dict[int, dict[str, float]]:
    """The lines of the log that tell accuracy, by the number of questions seen."""
    log = (DEMO / "measured" / seed / "training.jsonl").read_bytes().splitlines()
    return {line["answers"]: line for line in map(orjson.loads, log) if "acc@0.5" in line}


def accuracy(score: dict[str, Any]) -> str:
    low, high = (f"{100 * end:.1f}" for end in score["acc@0.5_ci95"])
    return f"{score['acc@0.5']:.1%} ({low}-{high})"


@pytest.mark.parametrize("split", ["standard", "hard"])
def test_accuracy(split: str) -> None:
    ours, theirs = (measured(seed, split) for seed in SEEDS)
    for kind, score in {**ours["groups"], "all": ours}.items():
        other = theirs if kind == "all" else theirs["groups"][kind]
        line = (
            f"| {split} | {kind} | {score['n']} | {accuracy(score)} | {score['acc@0.75']:.1%} | "
            f"{score['mean_iou']:.3f} | {score['n_no_box']} | {accuracy(other)} |"
        )
        assert line in CARD


@pytest.mark.parametrize("split", ["standard", "hard"])
def test_what_the_score_says(split: str) -> None:
    ours = measured(SHIPPED, split)
    for kind, score in {**ours["groups"], "all": ours}.items():
        quality = score["score_quality"]
        above = (f"{one['accuracy']:.1%} of {one['share']:.1%}" for one in quality["thresholds"])
        assert f"| {split} | {kind} | {quality['auc']:.3f} | {' | '.join(above)} |" in CARD


@pytest.mark.parametrize("split", ["standard", "hard"])
def test_what_the_boxes_hold(split: str) -> None:
    headings = ("the object meant", "a near copy", "another object", "no object", "no box")
    for kind, counts in measured(SHIPPED, split)["held"].items():
        shares = (f"{counts.get(heading, 0) / sum(counts.values()):.1%}" for heading in headings)
        assert f"| {split} | {kind} | {' | '.join(shares)} |" in CARD


def test_where_both_look() -> None:
    for ours, theirs in zip(*(measured(seed, "look")["layers"] for seed in SEEDS), strict=True):
        shares = (ours["last"], ours["drafted"], theirs["last"], theirs["drafted"])
        assert f"| {ours['layer']} | {' | '.join(f'{share:.1%}' for share in shares)} |" in CARD


def test_the_curves() -> None:
    ours, theirs = map(curve, SEEDS)
    for answers in ours.keys() | theirs.keys():
        shares = (
            f"{line[answers][form]:.2f}" if answers in line else ""
            for line in (ours, theirs)
            for form in ("acc@0.5", "acc@0.5_numbers_only")
        )
        assert f"| {answers:,} | {' | '.join(shares)} |" in CARD
