"""FLOPs (floating-point operations) and kv cache bytes of a prompt, computed from the shape of a checkpoint.

The count follows ``torch.utils.flop_counter``: two FLOPs for each multiply-add of a matrix product or convolution, and
both products of attention in full, T queries x S keys, although a causal mask hides half of them. It leaves out norms,
activations, RoPE, softmax, scorers and selectors: less than one percent at the sizes of InternVL2.5.

It counts the engine's work without drafts. A draft only moves tokens of the answer from decoding into prefill.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deeplayer_cli.cost.shape import CountedDrop, Drops, ModelShape, PromptLengths, StackShape


def vision_flops(shape: ModelShape, n_tiles: int) -> int:
    """FLOPs of the vision tower and the projector for an image of ``n_tiles``, the thumbnail included."""
    tokens = shape.patches + 1  # with the class token
    patches = 2 * shape.patches * shape.patch_values * shape.vision.hidden
    tower = shape.vision.layers * shape.vision.layer_flops(tokens, tokens)
    merged = shape.vision.hidden * shape.patches // shape.tokens_per_tile
    projector = 2 * shape.tokens_per_tile * shape.text.hidden * (merged + shape.text.hidden)
    return n_tiles * (patches + tower + projector)


def prefill_flops(shape: ModelShape, prompt: PromptLengths, drops: Drops = (), n_expressions: int = 1) -> int:
    """FLOPs of the language model up to the first answer token, for expressions of equal length about one image.

    Up to the first drop, the layers run the prefix once for all expressions. Without drops these are all layers, as in
    an unpruned model with a prefix cache. Later layers run once for each expression. P0 costs nothing.

    Args:
        shape: dimensions of the checkpoint.
        prompt: lengths of the prompt.
        drops: the drops of the method.
        n_expressions: number of expressions about the image.
    """
    text = shape.text
    seen = visual_by_layer(drops, prompt.visual, text.layers)
    once, each = _until_first_drop(shape, prompt, drops[0] if drops else None)
    if drops:
        each += _deferred_flops(text, prompt, drops[0], drops[0].n_keep)
        for n_visual in seen[drops[0].after_layer :]:
            each += _behind_p0_flops(text, prompt, prompt.length(n_visual))
    for drop in drops:
        if drop.looks_ahead:  # the next layer's projections, computed a second time to score
            before = seen[drop.after_layer - 1] if drop.after_layer else prompt.visual
            tokens = prompt.length(before) - prompt.before_image
            each += 2 * tokens * text.hidden * text.queries + text.key_flops(tokens)
    return once + n_expressions * (each + head_flops(shape))


def union_flops(shape: ModelShape, prompt: PromptLengths, drop: CountedDrop, n_union: int, n_expressions: int) -> int:
    """FLOPs as in `prefill_flops`, but the layers after the only drop run once over a union of kept tokens.

    Args:
        shape: dimensions of the checkpoint.
        prompt: lengths of the prompt.
        drop: the only drop of the method.
        n_union: number of visual tokens in the union.
        n_expressions: number of expressions about the image.
    """
    text, shared = shape.text, prompt.shared - prompt.visual + n_union
    once, each = _until_first_drop(shape, prompt, drop)
    late = text.layers - drop.after_layer
    once += _deferred_flops(text, prompt, drop, n_union) + late * _behind_p0_flops(text, prompt, shared)
    each += late * text.layer_flops(prompt.suffix, shared + prompt.suffix)
    return once + n_expressions * (each + head_flops(shape))


def _until_first_drop(shape: ModelShape, prompt: PromptLengths, drop: CountedDrop | None) -> tuple[int, int]:
    """FLOPs of layers 1..K without the deferred part: of the prefix, and of the suffix of each expression."""
    text = shape.text
    n_layers = drop.after_layer if drop else text.layers
    once = n_layers * _behind_p0_flops(text, prompt, prompt.shared)
    if drop is None or drop.defers_layer:
        finished = text.query_flops(prompt.after_image) + text.attention_flops(prompt.after_image, prompt.shared)
        once += finished + text.key_flops(prompt.image) - _behind_p0_flops(text, prompt, prompt.shared)
    return once, n_layers * text.layer_flops(prompt.suffix, prompt.shared + prompt.suffix)


def _deferred_flops(text: StackShape, prompt: PromptLengths, drop: CountedDrop, n_kept: int) -> int:
    """FLOPs of the kept tokens in the deferred part of layer K."""
    if not drop.defers_layer:
        return 0
    return text.query_flops(n_kept) + text.attention_flops(n_kept, prompt.before_image + prompt.visual)


def _behind_p0_flops(text: StackShape, prompt: PromptLengths, length: int) -> int:
    """FLOPs of one layer over the first ``length`` tokens of a prompt; the keys and values of P0 are known already.

    The engine puts P0's queries before the others, so that attention needs no mask. So their attention counts as well.
    """
    new = length - prompt.before_image
    return text.query_flops(new) + text.key_flops(new) + text.attention_flops(length, length)


def decode_flops(shape: ModelShape, prompt: PromptLengths, n_tokens: int, drops: Drops = ()) -> int:
    """FLOPs of decoding an answer of ``n_tokens``, one token per step; prefill gives the first token."""
    seen = visual_by_layer(drops, prompt.visual, shape.text.layers)
    return sum(
        head_flops(shape) + sum(shape.text.layer_flops(1, prompt.length(n_visual) + step) for n_visual in seen)
        for step in range(1, n_tokens)
    )


def kv_bytes(shape: ModelShape, prompt: PromptLengths, bytes_per_number: int, drops: Drops = ()) -> int:
    """Bytes of the keys and values of one prompt after prefill, in all layers."""
    seen = visual_by_layer(drops, prompt.visual, shape.text.layers)
    return sum(map(prompt.length, seen)) * 2 * shape.text.keys * bytes_per_number


def visual_by_layer(drops: Drops, n_visual: int, n_layers: int) -> list[int]:
    """Number of visual tokens that each layer sees, first layer first."""
    seen = [n_visual] * n_layers
    for drop in drops:
        seen[drop.after_layer :] = [drop.n_keep] * (n_layers - drop.after_layer)
    return seen


def head_flops(shape: ModelShape) -> int:
    """FLOPs of the logits after one token."""
    return 2 * shape.text.hidden * shape.vocabulary
