"""Computes the best possible speed of a device from its peak rates. Nothing is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from deeplayer_cli.bench.limits import PeakRates, TimeLimit
from deeplayer_cli.cost.flops import decode_flops, kv_bytes, prefill_flops, vision_flops
from deeplayer_cli.cost.shape import ModelShape, PromptLengths
from deeplayer_cli.pruning import Budget, Options, build

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deeplayer_cli.bench.suites import BenchPlan
    from deeplayer_cli.checkpoints import Layout

_EXPRESSION = "the small red circle"  # of all prompts
_PASSES = 4  # passes after prefill if every draft is right: one for each number of the box


@dataclass(frozen=True)
class RooflineLimit:
    """The smallest possible times, in seconds, for one expression about one image.

    Attributes:
        visual_tokens: number of visual tokens of the image.
        name: name of the pruning, for the table.
        vision: seconds from pixels to visual tokens.
        prefill: seconds from visual tokens to the first answer token.
        decode: seconds for the other answer tokens, one per pass.
        drafted: seconds for the other answer tokens if every draft is right.
        kv_bytes: bytes of the keys and values of the prompt.
    """

    visual_tokens: int
    name: str
    vision: float
    prefill: float
    decode: float
    drafted: float
    kv_bytes: int


def roofline(layout: Layout, plan: BenchPlan, device: PeakRates) -> Iterator[RooflineLimit]:
    """Compute the limits of a model for every tile count and pruning of a plan.

    A pass takes the longer of two times: its FLOPs at the peak rate, or one read of the language model's weights (and,
    in decoding, of the keys and values) at the peak bandwidth.

    Args:
        layout: gives the model's shape and tokenizer; no weights are read.
        plan: tile counts, keeps and answer length.
        device: peak rates of the device.
    """
    shape = ModelShape.from_config(layout.config)
    weights = device.bytes_per_number * shape.language_parameters
    for n_tiles in plan.tiles:
        n_visual = n_tiles * shape.tokens_per_tile
        prompt = PromptLengths.from_checkpoint(layout, n_visual, len(layout.tokenizer.encode_expression(_EXPRESSION)))
        for name, method, keep in plan.prunings:
            options = Options(Budget(keep), layer=plan.layer if method != "none" else None)
            pruning = build(method, options, shape.text.layers)
            held = kv_bytes(shape, prompt, device.bytes_per_number, pruning)
            decode = decode_flops(shape, prompt, plan.n_new, pruning)
            yield RooflineLimit(
                n_visual,
                name,
                vision_flops(shape, n_tiles) / device.flops,
                TimeLimit.of_passes(device, 1, prefill_flops(shape, prompt, pruning), weights, 0).seconds,
                TimeLimit.of_passes(device, plan.n_new - 1, decode, weights, held).seconds,
                TimeLimit.of_passes(device, _PASSES, decode, weights, held).seconds,
                held,
            )
