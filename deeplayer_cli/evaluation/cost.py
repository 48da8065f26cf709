"""What a method costs on rows that were really asked, by the engine's cost model."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deeplayer_cli.engine.flops import PromptLengths, Shape, drops_of, kv_bytes, prefill_flops, vision_flops
from deeplayer_cli.evaluation.compare import Cost
from deeplayer_cli.imaging import count_tiles

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from deeplayer_cli.boxes import Resolution
    from deeplayer_cli.checkpoints import Checkpoint
    from deeplayer_cli.imaging import Tiling
    from deeplayer_cli.pruning import Method
    from deeplayer_cli.schema import Prediction

Workload = Counter[tuple["Resolution", int]]
"""How many rows ask with an image of this width and height and an expression of this many tokens."""


@dataclass(frozen=True)
class CostModel:
    """What a checkpoint's prompts cost.

    Attributes:
        checkpoint: the model, for its shape, its tokenizer and its prompt.
    """

    checkpoint: Checkpoint

    def workload(self, predictions: Iterable[Prediction]) -> Workload:
        """What rows asked; those whose image was never read are left out."""
        encode = self.checkpoint.tokenizer.encode_expression
        return Counter(
            ((row.width, row.height), len(encode(row.expression)))
            for row in predictions
            if row.width is not None and row.height is not None and row.expression is not None
        )

    def largest(self, workload: Workload, tiling: Tiling) -> int:
        """Visual tokens of the image that has most."""
        return max(count_tiles(resolution, tiling) for resolution, _ in workload) * self.checkpoint.tokens_per_tile

    def cost(self, method: Method, workload: Workload, tiling: Tiling) -> Cost:
        """What at least one row costs under a method, with images cut by ``tiling``."""
        prompts: Counter[tuple[int, int]] = Counter()  # few: equal tile counts and lengths cost the same
        for (resolution, n_expression), rows in workload.items():
            prompts[count_tiles(resolution, tiling), n_expression] += rows
        return self._sum(method, prompts)

    def _sum(self, method: Method, prompts: Mapping[tuple[int, int], int]) -> Cost:
        shape, dtype = Shape.of(self.checkpoint.model.config), self.checkpoint.model.dtype
        rows = visual = 0
        seen = gflops = held = 0.0
        for (n_tiles, n_expression), n in prompts.items():
            prompt = PromptLengths.of(self.checkpoint, n_tiles * shape.tokens_per_tile, n_expression)
            drops = drops_of(method, prompt.visual)
            rows += n
            visual += n * prompt.visual
            seen += n * prompt.visual * method.mean_keep(prompt.visual, shape.text.layers)
            gflops += n * (vision_flops(shape, n_tiles) + prefill_flops(shape, prompt, drops)) / 1e9
            held += n * kv_bytes(shape, prompt, dtype.itemsize, drops)
        return Cost(rows, visual, seen, gflops, held)
