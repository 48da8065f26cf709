"""What a prompt costs, from a checkpoint's shape alone: floating-point operations and bytes of keys and values.

Counted as ``torch.utils.flop_counter`` counts: two operations for each multiply-add of a matrix product or convolution,
and attention of T queries over S keys as its two products in full, T x S, although a causal mask hides half of them.
Norms, activations, RoPE, softmax, and what scorers and selectors compute, are left out: below one percent at the sizes
that InternVL2.5 has.

Work is laid out as the engine does it without drafts: a draft moves an answer's tokens from decoding into the prompt's
own pass, and a row that is answered again because its draft was wrong is counted once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deeplayer_cli.cost.shape import CountedDrop, Drops, ModelShape, PromptLengths, StackShape


def vision_flops(shape: ModelShape, n_tiles: int) -> int:
    """The vision tower and the projector over an image of ``n_tiles``, its thumbnail included."""
    tokens = shape.patches + 1
    patches = 2 * shape.patches * shape.patch_values * shape.vision.hidden
    tower = shape.vision.layers * shape.vision.layer_flops(tokens, tokens)
    merged = shape.vision.hidden * shape.patches // shape.tokens_per_tile
    projector = 2 * shape.tokens_per_tile * shape.text.hidden * (merged + shape.text.hidden)
    return n_tiles * (patches + tower + projector)


def prefill_flops(shape: ModelShape, prompt: PromptLengths, drops: Drops = (), n_expressions: int = 1) -> int:
    """The language model up to the first answer token, for expressions of one length about one image.

    Layers until the first drop run what the expressions share once; without drops those are all layers, which is what
    an unpruned model with a prefix cache costs. Later layers run once for each expression.

    Args:
        shape: of the checkpoint.
        prompt: its lengths.
        drops: of the method.
        n_expressions: about this image.
    """
    text = shape.text
    seen = visual_by_layer(drops, prompt.visual, text.layers)
    once, each = _until_first_drop(shape, prompt, drops[0] if drops else None)
    if drops:
        each += _deferred_flops(text, prompt, drops[0], drops[0].n_keep)
        for n_visual in seen[drops[0].after_layer :]:
            each += _behind_p0_flops(text, prompt, prompt.length(n_visual))
    for drop in drops:
        if drop.looks_ahead:
            before = seen[drop.after_layer - 1] if drop.after_layer else prompt.visual
            tokens = prompt.length(before) - prompt.before_image
            each += 2 * tokens * text.hidden * text.queries + text.key_flops(tokens)
    return once + n_expressions * (each + head_flops(shape))


def union_flops(shape: ModelShape, prompt: PromptLengths, drop: CountedDrop, n_union: int, n_expressions: int) -> int:
    """As `prefill_flops` with one drop, where the expressions keep ``n_union`` visual tokens together."""
    text, shared = shape.text, prompt.shared - prompt.visual + n_union
    once, each = _until_first_drop(shape, prompt, drop)
    late = text.layers - drop.after_layer
    once += _deferred_flops(text, prompt, drop, n_union) + late * _behind_p0_flops(text, prompt, shared)
    each += late * text.layer_flops(prompt.suffix, shared + prompt.suffix)
    return once + n_expressions * (each + head_flops(shape))


def _until_first_drop(shape: ModelShape, prompt: PromptLengths, drop: CountedDrop | None) -> tuple[int, int]:
    """Layers 1..K: what the expressions share, and what each of them adds; the deferred part of a layer left out."""
    text = shape.text
    n_layers = drop.after_layer if drop else text.layers
    once = n_layers * _behind_p0_flops(text, prompt, prompt.shared)
    if drop is None or drop.defers_layer:
        finished = text.query_flops(prompt.after_image) + text.attention_flops(prompt.after_image, prompt.shared)
        once += finished + text.key_flops(prompt.image) - _behind_p0_flops(text, prompt, prompt.shared)
    return once, n_layers * text.layer_flops(prompt.suffix, prompt.shared + prompt.suffix)


def _deferred_flops(text: StackShape, prompt: PromptLengths, drop: CountedDrop, n_kept: int) -> int:
    """What the kept visual tokens do in the deferred part of a layer."""
    if not drop.defers_layer:
        return 0
    return text.query_flops(n_kept) + text.attention_flops(n_kept, prompt.before_image + prompt.visual)


def _behind_p0_flops(text: StackShape, prompt: PromptLengths, length: int) -> int:
    """One layer over the first ``length`` tokens of a prompt, of which P0's keys and values are known.

    P0's queries stand in front of the others, so that attention needs no mask: they are attended with again.
    """
    new = length - prompt.before_image
    return text.query_flops(new) + text.key_flops(new) + text.attention_flops(length, length)


def decode_flops(shape: ModelShape, prompt: PromptLengths, n_tokens: int, drops: Drops = ()) -> int:
    """The steps after prefill that an answer of ``n_tokens`` takes, one token a step; prefill gives the first token."""
    seen = visual_by_layer(drops, prompt.visual, shape.text.layers)
    return sum(
        head_flops(shape) + sum(shape.text.layer_flops(1, prompt.length(n_visual) + step) for n_visual in seen)
        for step in range(1, n_tokens)
    )


def kv_bytes(shape: ModelShape, prompt: PromptLengths, bytes_per_number: int, drops: Drops = ()) -> int:
    """Keys and values of one prompt, read to its end, in all layers."""
    seen = visual_by_layer(drops, prompt.visual, shape.text.layers)
    return sum(map(prompt.length, seen)) * 2 * shape.text.keys * bytes_per_number


def visual_by_layer(drops: Drops, n_visual: int, n_layers: int) -> list[int]:
    """How many visual tokens each layer sees, first layer first."""
    seen = [n_visual] * n_layers
    for drop in drops:
        seen[drop.after_layer :] = [drop.n_keep] * (n_layers - drop.after_layer)
    return seen


def head_flops(shape: ModelShape) -> int:
    """Logits after one token."""
    return 2 * shape.text.hidden * shape.vocabulary
