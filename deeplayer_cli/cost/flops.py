"""FLOPs (floating-point operations) and kv cache bytes of a prompt, computed from the shape of a checkpoint.

The count follows ``torch.utils.flop_counter``: two FLOPs for each multiply-add of a matrix product or convolution, and
both products of attention in full, T queries x S keys, although a causal mask hides half of them
(`ModelShape.without_hidden_pairs` leaves them out, to compare with measured time). It leaves out norms, activations,
RoPE, softmax, scorers and selectors: less than one percent at the sizes of InternVL2.5.

It counts the engine's work without drafts, because a draft only moves tokens of the answer from decoding into prefill.
A scout reads the draft in addition, so there it is counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deeplayer_cli.cost.shape import ModelShape, PromptLengths, StackShape
    from deeplayer_cli.pruning import Method


def vision_flops(shape: ModelShape, n_tiles: int) -> int:
    """FLOPs of the vision tower and the projector for an image of ``n_tiles``, the thumbnail included."""
    tokens = shape.patches + 1  # with the class token
    patches = 2 * shape.patches * shape.patch_values * shape.vision.hidden
    tower = shape.vision.layers * shape.vision.layer_flops(tokens, tokens)
    merged = shape.vision.hidden * shape.patches // shape.tokens_per_tile
    projector = 2 * shape.tokens_per_tile * shape.text.hidden * (merged + shape.text.hidden)
    return n_tiles * (patches + tower + projector)


def prefill_flops(
    shape: ModelShape, prompt: PromptLengths, method: Method, n_expressions: int = 1, n_kept: int | None = None
) -> int:
    """FLOPs of the language model up to the first answer token, for expressions of equal length about one image.

    Layers 1..K run the prefix once for all expressions. Later layers run once for each expression. If the method drops
    nothing, K is L, as in an unpruned model with a prefix cache. P0 costs nothing.

    Args:
        shape: dimensions of the checkpoint.
        prompt: lengths of the prompt.
        method: the method.
        n_expressions: number of expressions about the image.
        n_kept: number of tokens that were really kept at the end, for a method whose budget depends on the content;
            None for the upper bound.
    """
    text = shape.text
    once, each = _prefix_flops(text, prompt, method)
    if method.prunes(prompt.visual):
        seen = visual_by_layer(method, prompt.visual, text.layers, n_kept)
        first, updated = method.stages[0].drop_after_layer, method.updated_layers(text.layers)
        n_text = prompt.after_image + prompt.suffix
        each += _deferred_flops(text, prompt, method, method.schedule(prompt.visual, n_kept)[0][1])
        each += sum(_layer_flops(text, prompt, seen[i], n_text, updates=i < updated) for i in range(first, text.layers))
        for stage in method.stages:
            if stage.reads_next_layer:  # the next layer's projections, computed a second time to score
                tokens = n_text + (seen[stage.drop_after_layer - 1] if stage.drop_after_layer else prompt.visual)
                each += 2 * tokens * text.hidden * text.queries + text.key_flops(tokens)
    return once + n_expressions * (each + head_flops(shape))


def union_flops(shape: ModelShape, prompt: PromptLengths, method: Method, n_union: int, n_expressions: int) -> int:
    """FLOPs as in `prefill_flops`, but the layers after the only drop run once over a union of kept tokens.

    Args:
        shape: dimensions of the checkpoint.
        prompt: lengths of the prompt.
        method: a method of one drop.
        n_union: number of visual tokens in the union.
        n_expressions: number of expressions about the image.
    """
    text, shared = shape.text, prompt.shared - prompt.visual + n_union
    first, updated = method.stages[0].drop_after_layer, method.updated_layers(text.layers)
    once, each = _prefix_flops(text, prompt, method)
    once += _deferred_flops(text, prompt, method, n_union)
    for index in range(first, text.layers):
        once += _layer_flops(text, prompt, n_union, prompt.after_image, updates=index < updated)
        each += text.layer_flops(prompt.suffix, shared + prompt.suffix)
    return once + n_expressions * (each + head_flops(shape))


def _prefix_flops(text: StackShape, prompt: PromptLengths, method: Method) -> tuple[int, int]:
    """FLOPs of layers 1..K without the deferred part: of the prefix, and of the suffix of each expression.

    If these layers are a scout, each expression's draft runs through them in addition.
    """
    n_layers, n_updated = method.prefix_layers(prompt.visual, text.layers)
    once = sum(
        _layer_flops(text, prompt, prompt.visual, prompt.after_image, updates=index < n_updated)
        for index in range(n_layers)
    )
    suffix = prompt.suffix + (prompt.draft if method.scouts(prompt.visual) else 0)
    return once, n_layers * text.layer_flops(suffix, prompt.shared + suffix)


def _deferred_flops(text: StackShape, prompt: PromptLengths, method: Method, n_kept: int) -> int:
    """FLOPs of the kept tokens in the deferred part of layer K; 0 if layer K is not deferred."""
    if not method.defers_layer_k(text.layers):
        return 0
    return text.query_flops(n_kept) + text.attention_flops(n_kept, prompt.before_image + prompt.visual)


def _layer_flops(text: StackShape, prompt: PromptLengths, n_visual: int, n_text: int, *, updates: bool) -> int:
    """FLOPs of one layer over visual tokens and the text after them; the keys and values of P0 are known already.

    A layer that does not update the visual tokens only projects their keys and values.
    """
    length = prompt.before_image + n_visual + n_text
    keys = text.key_flops(n_visual + n_text)
    if not updates:
        return keys + text.query_flops(n_text) + text.attention_flops(n_text, length)
    # For SDPA, the engine puts P0's queries before the others, see `attend_causally`. Their attention counts as well.
    return keys + text.query_flops(n_visual + n_text) + text.causal_flops(length)


def decode_flops(shape: ModelShape, prompt: PromptLengths, n_tokens: int, method: Method) -> int:
    """FLOPs of decoding an answer of ``n_tokens``, one token per step; prefill gives the first token."""
    seen = visual_by_layer(method, prompt.visual, shape.text.layers)
    return sum(
        head_flops(shape) + sum(shape.text.layer_flops(1, prompt.length(n_visual) + step) for n_visual in seen)
        for step in range(1, n_tokens)
    )


def kv_bytes(
    shape: ModelShape, prompt: PromptLengths, bytes_per_number: int, method: Method, n_kept: int | None = None
) -> int:
    """Bytes of the keys and values of one prompt after prefill, in all layers."""
    seen = visual_by_layer(method, prompt.visual, shape.text.layers, n_kept)
    return sum(map(prompt.length, seen)) * 2 * shape.text.keys * bytes_per_number


def visual_by_layer(method: Method, n_visual: int, n_layers: int, n_kept: int | None = None) -> list[int]:
    """Number of visual tokens that each layer sees, first layer first; ``n_kept`` as in `prefill_flops`."""
    seen = [n_visual] * n_layers
    if method.prunes(n_visual):
        for after, count in method.schedule(n_visual, n_kept):
            seen[after:] = [count] * (n_layers - after)
    return seen


def head_flops(shape: ModelShape) -> int:
    """FLOPs of the logits after one token."""
    return 2 * shape.text.hidden * shape.vocabulary
