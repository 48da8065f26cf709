"""What a prompt costs, from a checkpoint's shape alone: floating-point operations and bytes of keys and values.

Counted as ``torch.utils.flop_counter`` counts: two operations for each multiply-add of a matrix product or convolution,
and attention of T queries over S keys as its two products in full, T x S, although a causal mask hides half of them.
Norms, activations, RoPE, softmax, and what scorers and selectors compute, are left out: below one percent at the sizes
that InternVL2.5 has.

Work is laid out as the engine does it without drafts: a draft moves an answer's tokens from decoding into the prompt's
own pass, and a row that is asked anew because its draft was wrong is counted once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import InternVLConfig

    from deeplayer_cli.checkpoints import Checkpoint, Layout
    from deeplayer_cli.pruning import Method


@dataclass(frozen=True)
class Drop:
    """One drop of an image's visual tokens.

    Attributes:
        after_layer: 1-based; 0 = before layer 1.
        n_keep: how many are left.
        leaves_open: what is dropped never finishes that layer: it gave its keys and values, and nothing more is needed.
        looks_ahead: the next layer's queries, keys and values are computed for all, in order to score.
    """

    after_layer: int
    n_keep: int
    leaves_open: bool = False
    looks_ahead: bool = False


Drops = tuple[Drop, ...]
"""In the order of their layers; none where nothing is pruned."""


def drops_of(method: Method, n_visual: int) -> Drops:
    """What a method does to an image of ``n_visual`` tokens."""
    if method.count(n_visual) == n_visual:
        return ()
    first, *later = method.stages
    return (
        Drop(first.drop_after_layer, first.count(n_visual), first.leaves_open, first.reads_next),
        *(Drop(s.drop_after_layer, s.count(n_visual), looks_ahead=s.reads_next) for s in later),
    )


@dataclass(frozen=True)
class Transformer:
    """The dimensions of a stack of equal layers.

    Attributes:
        layers: their number.
        hidden: width of the residual stream.
        queries: query heads times head dimension.
        keys: key heads times head dimension; the values' as well.
        intermediate: width of the MLP.
        mlp_matrices: 2, or 3 for a gated MLP.
    """

    layers: int
    hidden: int
    queries: int
    keys: int
    intermediate: int
    mlp_matrices: int

    def query_flops(self, n_tokens: int) -> int:
        """Queries, output projection and MLP of one layer."""
        return 2 * n_tokens * self.hidden * (2 * self.queries + self.mlp_matrices * self.intermediate)

    def key_flops(self, n_tokens: int) -> int:
        """Keys and values of one layer."""
        return 2 * n_tokens * self.hidden * 2 * self.keys

    def attention_flops(self, n_queries: int, n_keys: int) -> int:
        """The two products of one layer's attention."""
        return 4 * n_queries * n_keys * self.queries

    def layer_flops(self, n_tokens: int, n_keys: int) -> int:
        """One layer over ``n_tokens`` that attend to ``n_keys``, themselves among them."""
        return self.query_flops(n_tokens) + self.key_flops(n_tokens) + self.attention_flops(n_tokens, n_keys)


@dataclass(frozen=True)
class Shape:
    """What a checkpoint's cost depends on.

    Attributes:
        vision: the tower.
        patches: of a tile; the tower sees a class token besides.
        patch_values: numbers in a patch, over all colours.
        text: the decoder.
        tokens_per_tile: visual tokens that a tile becomes.
        vocabulary: rows of the output head.
    """

    vision: Transformer
    patches: int
    patch_values: int
    text: Transformer
    tokens_per_tile: int
    vocabulary: int

    @classmethod
    def of(cls, config: InternVLConfig) -> Shape:
        """The shape of a model with this configuration."""
        vision, text = config.vision_config, config.text_config
        (height, width), (patch_height, patch_width) = vision.image_size, vision.patch_size
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        return cls(
            vision=Transformer(
                vision.num_hidden_layers,
                vision.hidden_size,
                vision.hidden_size,
                vision.hidden_size,
                vision.intermediate_size,
                mlp_matrices=2,
            ),
            patches=(height // patch_height) * (width // patch_width),
            patch_values=vision.num_channels * patch_height * patch_width,
            text=Transformer(
                text.num_hidden_layers,
                text.hidden_size,
                text.num_attention_heads * head,
                text.num_key_value_heads * head,
                text.intermediate_size,
                mlp_matrices=3,
            ),
            tokens_per_tile=config.image_seq_length,
            vocabulary=text.vocab_size,
        )


@dataclass(frozen=True)
class PromptLengths:
    """A prompt in tokens.

    Attributes:
        before_image: constant, so that its keys and values are computed once a process and cost nothing later.
        visual: all visual tokens.
        after_image: what follows the image and is the same for every expression.
        own: the expression and what closes the prompt.
    """

    before_image: int
    visual: int
    after_image: int
    own: int

    @classmethod
    def of(cls, checkpoint: Checkpoint | Layout, n_visual: int, n_expression: int) -> PromptLengths:
        """A checkpoint's prompt with this many visual tokens and an expression of this many tokens."""
        tokenizer, prompt = checkpoint.tokenizer, checkpoint.prompt
        return cls(
            len(tokenizer.encode(prompt.before_image)),
            n_visual,
            len(tokenizer.encode_piece(prompt.after_image)),
            n_expression + len(tokenizer.encode_piece(prompt.after_expression)),
        )

    @property
    def image(self) -> int:
        """Tokens that all expressions of an image share, but other images do not."""
        return self.visual + self.after_image

    @property
    def shared(self) -> int:
        """Tokens before the expression."""
        return self.before_image + self.image

    def length(self, n_visual: int) -> int:
        """Tokens of the whole prompt with ``n_visual`` visual ones."""
        return self.before_image + n_visual + self.after_image + self.own


def vision_flops(shape: Shape, n_tiles: int) -> int:
    """The vision tower and the projector over an image of ``n_tiles``, its thumbnail included."""
    tokens = shape.patches + 1
    patches = 2 * shape.patches * shape.patch_values * shape.vision.hidden
    tower = shape.vision.layers * shape.vision.layer_flops(tokens, tokens)
    merged = shape.vision.hidden * shape.patches // shape.tokens_per_tile
    projector = 2 * shape.tokens_per_tile * shape.text.hidden * (merged + shape.text.hidden)
    return n_tiles * (patches + tower + projector)


def prefill_flops(shape: Shape, prompt: PromptLengths, drops: Drops = (), n_expressions: int = 1) -> int:
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
        each += _survivor_flops(text, prompt, drops[0], drops[0].n_keep)
        for n_visual in seen[drops[0].after_layer :]:
            each += _behind_p0_flops(text, prompt, prompt.length(n_visual))
    for drop in drops:
        if drop.looks_ahead:
            before = seen[drop.after_layer - 1] if drop.after_layer else prompt.visual
            tokens = prompt.length(before) - prompt.before_image
            each += 2 * tokens * text.hidden * text.queries + text.key_flops(tokens)
    return once + n_expressions * (each + head_flops(shape))


def union_flops(shape: Shape, prompt: PromptLengths, drop: Drop, n_union: int, n_expressions: int) -> int:
    """As `prefill_flops` with one drop, where the expressions keep ``n_union`` visual tokens together."""
    text, shared = shape.text, prompt.shared - prompt.visual + n_union
    once, each = _until_first_drop(shape, prompt, drop)
    late = text.layers - drop.after_layer
    once += _survivor_flops(text, prompt, drop, n_union) + late * _behind_p0_flops(text, prompt, shared)
    each += late * text.layer_flops(prompt.own, shared + prompt.own)
    return once + n_expressions * (each + head_flops(shape))


def _until_first_drop(shape: Shape, prompt: PromptLengths, drop: Drop | None) -> tuple[int, int]:
    """Layers 1..K: what the expressions share, and what each of them adds; survivors of an open layer left out."""
    text = shape.text
    n_layers = drop.after_layer if drop else text.layers
    once = n_layers * _behind_p0_flops(text, prompt, prompt.shared)
    if drop is None or drop.leaves_open:
        finished = text.query_flops(prompt.after_image) + text.attention_flops(prompt.after_image, prompt.shared)
        once += finished + text.key_flops(prompt.image) - _behind_p0_flops(text, prompt, prompt.shared)
    return once, n_layers * text.layer_flops(prompt.own, prompt.shared + prompt.own)


def _survivor_flops(text: Transformer, prompt: PromptLengths, drop: Drop, n_survivors: int) -> int:
    """What the visual tokens that stay still do in a layer that was left open."""
    if not drop.leaves_open:
        return 0
    return text.query_flops(n_survivors) + text.attention_flops(n_survivors, prompt.before_image + prompt.visual)


def _behind_p0_flops(text: Transformer, prompt: PromptLengths, length: int) -> int:
    """One layer over the first ``length`` tokens of a prompt, of which P0's keys and values are known.

    P0's queries stand in front of the others, so that attention needs no mask: they are attended with again.
    """
    new = length - prompt.before_image
    return text.query_flops(new) + text.key_flops(new) + text.attention_flops(length, length)


def decode_flops(shape: Shape, prompt: PromptLengths, n_tokens: int, drops: Drops = ()) -> int:
    """The steps after prefill that an answer of ``n_tokens`` takes, one token a step; prefill gives the first token."""
    seen = visual_by_layer(drops, prompt.visual, shape.text.layers)
    return sum(
        head_flops(shape) + sum(shape.text.layer_flops(1, prompt.length(n_visual) + step) for n_visual in seen)
        for step in range(1, n_tokens)
    )


def kv_bytes(shape: Shape, prompt: PromptLengths, bytes_per_number: int, drops: Drops = ()) -> int:
    """Keys and values of one prompt, read to its end, in all layers."""
    seen = visual_by_layer(drops, prompt.visual, shape.text.layers)
    return sum(map(prompt.length, seen)) * 2 * shape.text.keys * bytes_per_number


def visual_by_layer(drops: Drops, n_visual: int, n_layers: int) -> list[int]:
    """How many visual tokens each layer sees, first layer first."""
    seen = [n_visual] * n_layers
    for drop in drops:
        seen[drop.after_layer :] = [drop.n_keep] * (n_layers - drop.after_layer)
    return seen


def head_flops(shape: Shape) -> int:
    """Logits after one token."""
    return 2 * shape.text.hidden * shape.vocabulary
