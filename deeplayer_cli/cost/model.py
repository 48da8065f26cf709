"""The cost of a method on the rows of a run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from deeplayer_cli.cost.flops import kv_bytes, prefill_flops, vision_flops
from deeplayer_cli.cost.shape import ModelShape, PromptLengths
from deeplayer_cli.models.internvl.tiling import count_tiles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deeplayer_cli.boxes import Resolution
    from deeplayer_cli.checkpoints import Checkpoint, Layout
    from deeplayer_cli.models.internvl.tiling import Tiling
    from deeplayer_cli.pruning import Method
    from deeplayer_cli.schema import Prediction


class WorkloadKey(NamedTuple):
    """What the cost of a row under a method depends on.

    Attributes:
        resolution_wh: width and height of the image.
        n_expression: number of tokens of the expression.
        n_kept: number of kept tokens; None if it does not depend on the content.
        fell_back: whether the row was asked a second time, without pruning.
    """

    resolution_wh: Resolution
    n_expression: int
    n_kept: int | None = None
    fell_back: bool = False


Workload = Counter[WorkloadKey]
"""Number of rows by key."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of rows, each counted as the only expression about its image. Totals are over all rows.

    Attributes:
        rows: number of rows. Rows whose image was never read cost nothing and are not counted.
        visual_tokens: total number of visual tokens.
        seen_tokens: total number of visual tokens that a layer sees, as a mean over layers.
        total_gflops: total GFLOPs of vision tower, projector and prefill, without the answer; see
            `deeplayer_cli.cost.flops`.
        total_kv_bytes: total bytes of keys and values after prefill.
    """

    rows: int
    visual_tokens: int
    seen_tokens: float
    total_gflops: float
    total_kv_bytes: float

    @property
    def mean_keep(self) -> float:
        """Share of the visual tokens that a layer sees, as a mean over layers."""
        return self.seen_tokens / self.visual_tokens

    @property
    def gflops(self) -> float:
        """GFLOPs per row, as a mean."""
        return self.total_gflops / self.rows

    @property
    def kv_bytes(self) -> float:
        """Bytes of keys and values per row, as a mean."""
        return self.total_kv_bytes / self.rows

    def plus(self, other: Cost) -> Cost:
        """The cost of the rows of both."""
        return Cost(
            self.rows + other.rows,
            self.visual_tokens + other.visual_tokens,
            self.seen_tokens + other.seen_tokens,
            self.total_gflops + other.total_gflops,
            self.total_kv_bytes + other.total_kv_bytes,
        )


@dataclass(frozen=True)
class CostModel:
    """Computes costs of prompts of one checkpoint.

    Attributes:
        checkpoint: gives the model's shape, tokenizer and prompt.
        itemsize: bytes of a number in the model's dtype.
    """

    checkpoint: Checkpoint | Layout
    itemsize: int

    @property
    def _shape(self) -> ModelShape:
        return ModelShape.from_config(self.checkpoint.config)

    def prompt(self, resolution_wh: Resolution, expression: str) -> WorkloadKey:
        """The workload key of a row that is not answered yet."""
        return WorkloadKey(resolution_wh, len(self.checkpoint.tokenizer.encode_expression(expression)))

    def answered(self, row: Prediction, method: Method) -> WorkloadKey | None:
        """The workload key of an answered row; None if its image was never read."""
        if row.width is None or row.height is None or row.expression is None:
            return None
        n_kept = row.kept_tokens if row.fallback is None else row.fallback["kept_tokens"]
        n_kept = int(n_kept) if method.is_adaptive and n_kept is not None else None
        prompt = self.prompt((row.width, row.height), row.expression)
        return prompt._replace(n_kept=n_kept, fell_back=row.fallback is not None)

    def largest(self, workload: Workload, tiling: Tiling) -> int:
        """The largest number of visual tokens of an image in the workload."""
        return max(count_tiles(key.resolution_wh, tiling) for key in workload) * self._shape.tokens_per_tile

    def cost(self, method: Method, workload: Workload, tiling: Tiling) -> Cost:
        """The cost of a workload of at least one row under a method, with images cut by ``tiling``."""
        prompts: Counter[tuple[int, int, int | None, bool]] = Counter()  # equal tile counts and lengths cost the same
        for (resolution, n_expression, n_kept, fell_back), rows in workload.items():
            prompts[count_tiles(resolution, tiling), n_expression, n_kept, fell_back] += rows
        return self._sum(method, prompts)

    def _sum(self, method: Method, prompts: Mapping[tuple[int, int, int | None, bool], int]) -> Cost:
        from deeplayer_cli.pruning import Method  # which needs torch

        shape = self._shape
        rows = visual = 0
        seen = gflops = held = 0.0
        for (n_tiles, n_expression, n_kept, fell_back), n in prompts.items():
            prompt = PromptLengths.from_checkpoint(self.checkpoint, n_tiles * shape.tokens_per_tile, n_expression)
            rows += n
            visual += n * prompt.visual
            gflops += n * vision_flops(shape, n_tiles) / 1e9
            for one in (method, Method("none")) if fell_back else (method,):
                seen += n * prompt.visual * one.mean_keep(prompt.visual, shape.text.layers, n_kept)
                gflops += n * prefill_flops(shape, prompt, one, n_kept=n_kept) / 1e9
            held += n * kv_bytes(shape, prompt, self.itemsize, Method("none") if fell_back else method, n_kept)
        return Cost(rows, visual, seen, gflops, held)
