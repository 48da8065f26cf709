"""What a line of a comparison costs at the shape of a large model, and how long it takes; from `evaluation.pricing`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import orjson

from deeplayer_cli.errors import DeeplayerError, reading

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from deeplayer_cli.evaluation.compare import MethodRun

LineKey = tuple[str, "float | None", "int | None"]
"""Label, keep and layer, which tell the lines of a comparison apart."""


@dataclass(frozen=True, slots=True)
class LineCost:
    """The cost of one line.

    Attributes:
        label: name of the line.
        keep: its share of visual tokens.
        layer: the layer of its first drop, in the model that ran.
        mean_keep: share of the visual tokens that a layer sees, as a mean over layers.
        lm_flops: FLOPs of the language model's prefill, as a share of those without pruning.
        flops: the same with the vision tower.
        seconds: CPU seconds from pixels to the first answer token, one for each round.
    """

    label: str
    keep: float | None
    layer: int | None
    mean_keep: float
    lm_flops: float
    flops: float
    seconds: Sequence[float] = ()

    @property
    def key(self) -> LineKey:
        """The line that it is the cost of."""
        return self.label, self.keep, self.layer

    @property
    def least(self) -> float:
        """The time of the round that was disturbed least."""
        return min(self.seconds)


def key_of(run: MethodRun) -> LineKey:
    """The key of a line's cost."""
    return run.label, run.keep, run.layer


def costs_json(costs: Sequence[LineCost], circumstances: Mapping[str, object]) -> bytes:
    """Costs as JSON, one line of text for each."""
    lines = b",\n".join(orjson.dumps(asdict(cost)) for cost in costs)
    return b'%b,\n"lines": [\n%b\n]}\n' % (orjson.dumps(circumstances)[:-1], lines)


def read_costs(path: Path) -> dict[LineKey, LineCost]:
    """Read a file of `costs_json`.

    Raises:
        DeeplayerError: the file cannot be read, or is none.
    """
    with reading(str(path)):
        content = path.read_bytes()
    try:
        costs = [LineCost(**line) for line in orjson.loads(content)["lines"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DeeplayerError(f"{path} is not what deeplayer_cli.evaluation.pricing prints: {error}") from error
    return {cost.key: cost for cost in costs}
