"""Memory of a prompt above the weights: an estimate of the most bytes that exist at once for it.

The estimate follows the steps of the engine. A test holds it against the bytes that the engine allocates at the shapes
of the 8B: at least the peak, and at most a fifth above it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deeplayer_cli.cost.flops import visual_by_layer

if TYPE_CHECKING:
    from deeplayer_cli.cost.shape import ModelShape, PromptLengths, StackShape
    from deeplayer_cli.pruning import Method

_STATES = 8  # of a layer, as wide as the hidden states: input and output, normalised, rotated, attended and projected
_WIDE = 2  # as wide as the inside of an MLP: before and after its activation; then its two halves, if it is gated
_REST = 1.01  # masks, positions and indices
_LOGIT = 8  # bytes beside a logit in the model's dtype: in float32, twice
_PAIR = 20  # bytes for two visual tokens of a method that compares their features


def estimated_bytes(
    shape: ModelShape, prompt: PromptLengths, method: Method, n_answer: int, bytes_per_number: int
) -> int:
    """The most bytes that exist at once for a prompt about an image of its own, while it is answered.

    Args:
        shape: dimensions of the checkpoint.
        prompt: lengths of the prompt; its draft counts.
        method: the method.
        n_answer: number of tokens that the caches have space for behind the prompt.
        bytes_per_number: of the model's dtype.
    """
    n_patches = prompt.visual // shape.tokens_per_tile * (shape.patches + 1)
    encode = bytes_per_number * _layer_numbers(shape.vision, n_patches)
    prefix = bytes_per_number * _prefix_numbers(shape.text, prompt, method)
    return int(_REST * max(encode, prefix, _prefill_bytes(shape, prompt, method, n_answer, bytes_per_number)))


def _prefix_numbers(text: StackShape, prompt: PromptLengths, method: Method) -> int:
    """Numbers that exist at once while the prefix of an image runs through layers 1..K."""
    n_layers, n_updated = method.prefix_layers(prompt.visual, text.layers)
    numbers = 2 * text.keys * n_layers * prompt.shared
    if n_updated:
        return numbers + _layer_numbers(text, prompt.image)
    return numbers + _layer_numbers(text, prompt.after_image) + _STATES * text.hidden * prompt.visual


def _prefill_bytes(
    shape: ModelShape, prompt: PromptLengths, method: Method, n_answer: int, bytes_per_number: int
) -> int:
    """Bytes that exist at once after the prefix: prefix, caches, the largest layer over kept tokens, and logits."""
    text, n_visual = shape.text, prompt.visual
    n_layers, _ = method.prefix_layers(n_visual, text.layers)
    seen = visual_by_layer(method, n_visual, text.layers)
    copied, after = n_layers, seen[n_layers:]
    if method.scouts(n_visual):  # of a scout's keys and values, only those of two layers exist at once
        copied, after = 2, [method.schedule(n_visual)[0][1]] * text.layers
    cached = [*[n_visual] * copied, *after]
    in_layer = n_visual if any(stage.reads_next_layer for stage in method.stages) else max(after, default=0)
    numbers = 2 * text.keys * (n_layers * prompt.shared + sum(prompt.length(n) + n_answer for n in cached))
    numbers += 2 * text.hidden * prompt.image  # embeddings of the visual tokens, and what layer K makes of them
    numbers += _layer_numbers(text, in_layer + prompt.after_image + prompt.suffix + prompt.draft)
    logits = (prompt.draft + 1) * shape.vocabulary * (bytes_per_number + _LOGIT)
    compares = any("features" in stage.needs for stage in method.stages)
    return bytes_per_number * numbers + logits + compares * _PAIR * n_visual**2


def _layer_numbers(stack: StackShape, n_tokens: int) -> int:
    """Numbers that exist at once while a layer updates ``n_tokens``: mostly those of its MLP."""
    return n_tokens * (_STATES * stack.hidden + _WIDE * stack.intermediate)
