"""How fast a device could be at best: arithmetic alone, nothing is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from deeplayer_cli.cost.flops import decode_flops, kv_bytes, prefill_flops, vision_flops
from deeplayer_cli.cost.shape import ModelShape, PromptLengths, drops_of
from deeplayer_cli.pruning import Budget, Options, build

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deeplayer_cli.bench.suites import BenchPlan
    from deeplayer_cli.checkpoints import Layout

_EXPRESSION = "the small red circle"  # of all prompts
_PASSES = 4  # after the prompt's own, where every draft is right: one for each number


@dataclass(frozen=True)
class PeakRates:
    """Peak rates.

    Attributes:
        flops: per second, in the dtype of the run.
        bandwidth: of the memory, in bytes per second.
        bytes_per_number: 2 for bfloat16.
    """

    flops: float
    bandwidth: float
    bytes_per_number: int


@dataclass(frozen=True)
class RooflineLimit:
    """The least seconds that one expression about an image of its own can take.

    Attributes:
        visual_tokens: of the image.
        name: what is pruned.
        vision: pixels to visual tokens.
        prefill: visual tokens to the first answer token.
        decode: the other tokens, one a pass.
        drafted: the other tokens where every draft is right.
        kv_bytes: keys and values of the prompt.
    """

    visual_tokens: int
    name: str
    vision: float
    prefill: float
    decode: float
    drafted: float
    kv_bytes: int


def roofline(layout: Layout, plan: BenchPlan, device: PeakRates) -> Iterator[RooflineLimit]:
    """The limits of a model for every tile count and pruning of a plan.

    A pass takes as long as its FLOPs at the peak rate, or as reading the language model's weights and the keys and
    values once, whichever is longer.
    """
    shape = ModelShape.from_config(layout.config)
    weights = device.bytes_per_number * _parameters(shape)
    for n_tiles in plan.tiles:
        n_visual = n_tiles * shape.tokens_per_tile
        prompt = PromptLengths.from_checkpoint(layout, n_visual, len(layout.tokenizer.encode_expression(_EXPRESSION)))
        for name, method, keep in plan.prunings:
            drops = drops_of(build(method, Options(Budget(keep)), shape.text.layers), n_visual)
            held = kv_bytes(shape, prompt, device.bytes_per_number, drops)
            a_pass = (weights + held) / device.bandwidth
            decode = decode_flops(shape, prompt, plan.n_new, drops) / device.flops
            yield RooflineLimit(
                n_visual,
                name,
                vision_flops(shape, n_tiles) / device.flops,
                max(prefill_flops(shape, prompt, drops) / device.flops, weights / device.bandwidth),
                max(decode, (plan.n_new - 1) * a_pass),
                max(decode, _PASSES * a_pass),
                held,
            )


def _parameters(shape: ModelShape) -> int:
    """Of the language model and its head."""
    text = shape.text
    layer = text.hidden * (2 * text.queries + 2 * text.keys + text.mlp_matrices * text.intermediate)
    return text.layers * layer + text.hidden * shape.vocabulary
