"""Evaluation of the demo model on held-out scenes."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from deeplayer_cli.boxes import box_iou
from deeplayer_cli.demo.scenes import HELD_OUT_SEEDS, SPLITS, named, scene, write
from deeplayer_cli.sources.jsonl import JsonLines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deeplayer_cli.demo.scenes import Scene
    from deeplayer_cli.runtime.grounder import Grounder
    from deeplayer_cli.schema import Prediction

_HELD_FROM = 0.5  # IoU from which a box holds an object

Holding = Literal["the object meant", "a near copy", "another object", "no object", "no box"]
HOLDINGS: tuple[Holding, ...] = ("the object meant", "a near copy", "another object", "no object", "no box")


class HeldOutEvaluation:
    """Grounds about four expressions on each held-out scene, and counts which objects the predicted boxes hold.

    Args:
        split: a key of ``SPLITS``.
        first: number of the first scene, from 0.
        count: number of scenes.

    Attributes:
        held: for each kind of expression, how many boxes hold what (see ``holding``).

    Raises:
        DeeplayerError: the held-out scenes do not include all of these numbers.
    """

    def __init__(self, split: str, first: int, count: int) -> None:
        self._difficulty, self._first, self._count = SPLITS[split], first, count
        self._seeds = named(HELD_OUT_SEEDS, first, count)
        self._scene = lru_cache(maxsize=1)(self._draw)
        self.held: dict[str, Counter[Holding]] = {}

    def predictions(self, grounder: Grounder) -> Iterator[Prediction]:
        """Ground the expressions, and yield the predictions. Each is also counted in ``held``.

        The scenes are written as PNG files and read back by the request reader, as images of a user are.
        """
        with TemporaryDirectory() as name:
            folder = Path(name)
            write(folder, HELD_OUT_SEEDS, self._first, self._count, self._difficulty)
            for prediction in grounder.ground(JsonLines(folder / "requests.jsonl").rows()):
                drawn = self._scene(str(prediction.id).rpartition("-")[0])
                self.held.setdefault(str(prediction.meta["kind"]), Counter())[holding(prediction, drawn)] += 1
                yield prediction

    def _draw(self, name: str) -> Scene:
        return scene(self._seeds[name], self._difficulty)


def holding(prediction: Prediction, drawn: Scene) -> Holding:
    """Return what the predicted box holds: the object with the highest IoU, if that IoU is at least 0.5.

    A near copy is another object that differs from the object meant in at most one of shape, colour and size.

    Args:
        prediction: a prediction with a gold box.
        drawn: the scene; the gold box is the box of exactly one of its objects.
    """
    if prediction.box is None:
        return "no box"
    box = prediction.box
    best = max(drawn.objects, key=lambda thing: box_iou(box, thing.box))
    if box_iou(box, best.box) < _HELD_FROM:
        return "no object"
    (meant,) = (thing for thing in drawn.objects if thing.box == prediction.gold)
    if best is meant:
        return "the object meant"
    agreements = sum(mine == other for mine, other in zip(best.name.split(), meant.name.split(), strict=True))
    return "a near copy" if agreements >= 2 else "another object"
