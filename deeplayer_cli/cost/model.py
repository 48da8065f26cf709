"""What a method costs on the rows of a run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deeplayer_cli.cost.flops import kv_bytes, prefill_flops, vision_flops
from deeplayer_cli.cost.shape import ModelShape, PromptLengths, drops_of
from deeplayer_cli.models.internvl.tiling import count_tiles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deeplayer_cli.boxes import Resolution
    from deeplayer_cli.checkpoints import Checkpoint
    from deeplayer_cli.models.internvl.tiling import Tiling
    from deeplayer_cli.pruning import Method
    from deeplayer_cli.schema import Prediction

Workload = Counter[tuple["Resolution", int, "int | None"]]
"""How many rows have an image of this width and height and an expression of this many tokens, and keep this many visual
tokens; None where that does not depend on the content."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What rows cost, each as if it were alone: one expression about one image.

    Attributes:
        rows: their number; those in error before they were asked cost nothing and are not counted.
        visual_tokens: of all rows together.
        seen_tokens: the visual tokens that a layer sees, averaged over layers, of all rows together.
        total_gflops: vision tower, projector and the prompt's pass, without the answer, of all rows together; see
            `deeplayer_cli.cost.flops` for what is counted.
        total_kv_bytes: keys and values of the prompts at their end, of all rows together.
    """

    rows: int
    visual_tokens: int
    seen_tokens: float
    total_gflops: float
    total_kv_bytes: float

    @property
    def mean_keep(self) -> float:
        """Share of the visual tokens that is seen, averaged over layers."""
        return self.seen_tokens / self.visual_tokens

    @property
    def gflops(self) -> float:
        """Of one row, on average."""
        return self.total_gflops / self.rows

    @property
    def kv_bytes(self) -> float:
        """Of one row, on average."""
        return self.total_kv_bytes / self.rows

    def plus(self, other: Cost) -> Cost:
        """Of the rows of both."""
        return Cost(
            self.rows + other.rows,
            self.visual_tokens + other.visual_tokens,
            self.seen_tokens + other.seen_tokens,
            self.total_gflops + other.total_gflops,
            self.total_kv_bytes + other.total_kv_bytes,
        )


@dataclass(frozen=True)
class CostModel:
    """What a checkpoint's prompts cost.

    Attributes:
        checkpoint: the model, for its shape, its tokenizer and its prompt.
    """

    checkpoint: Checkpoint

    def prompt(self, resolution_wh: Resolution, expression: str) -> tuple[Resolution, int, None]:
        """A row of a workload, before it has been answered."""
        return resolution_wh, len(self.checkpoint.tokenizer.encode_expression(expression)), None

    def answered(self, row: Prediction, method: Method) -> tuple[Resolution, int, int | None] | None:
        """A row of a workload, after it has been answered; None if its image was never read."""
        if row.width is None or row.height is None or row.expression is None:
            return None
        resolution, n_expression, _ = self.prompt((row.width, row.height), row.expression)
        return resolution, n_expression, row.kept_tokens if method.is_adaptive else None

    def largest(self, workload: Workload, tiling: Tiling) -> int:
        """Visual tokens of the image that has most."""
        return max(count_tiles(resolution, tiling) for resolution, _, _ in workload) * self.checkpoint.tokens_per_tile

    def cost(self, method: Method, workload: Workload, tiling: Tiling) -> Cost:
        """What at least one row costs under a method, with images cut by ``tiling``."""
        prompts: Counter[tuple[int, int, int | None]] = Counter()  # few: equal tile counts and lengths cost the same
        for (resolution, n_expression, n_kept), rows in workload.items():
            prompts[count_tiles(resolution, tiling), n_expression, n_kept] += rows
        return self._sum(method, prompts)

    def _sum(self, method: Method, prompts: Mapping[tuple[int, int, int | None], int]) -> Cost:
        shape, dtype = ModelShape.from_config(self.checkpoint.model.config), self.checkpoint.model.dtype
        rows = visual = 0
        seen = gflops = held = 0.0
        for (n_tiles, n_expression, n_kept), n in prompts.items():
            prompt = PromptLengths.from_checkpoint(self.checkpoint, n_tiles * shape.tokens_per_tile, n_expression)
            drops = drops_of(method, prompt.visual, n_kept)
            rows += n
            visual += n * prompt.visual
            seen += n * prompt.visual * method.mean_keep(prompt.visual, shape.text.layers, n_kept)
            gflops += n * (vision_flops(shape, n_tiles) + prefill_flops(shape, prompt, drops)) / 1e9
            held += n * kv_bytes(shape, prompt, dtype.itemsize, drops)
        return Cost(rows, visual, seen, gflops, held)
