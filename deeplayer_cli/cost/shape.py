"""What a cost depends on: a model's dimensions, a prompt's lengths, and where tokens are dropped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deeplayer_cli.checkpoints import Checkpoint, Layout
    from deeplayer_cli.models.internvl.model import ModelConfig
    from deeplayer_cli.pruning import Method


@dataclass(frozen=True)
class CountedDrop:
    """One drop of an image's visual tokens.

    Attributes:
        after_layer: 1-based; 0 = before layer 1.
        n_keep: how many are left.
        defers_layer: only the kept tokens run through the attention output and MLP of that layer; of the others, only
            keys and values are computed.
        looks_ahead: the next layer's queries, keys and values are computed for all, in order to score.
    """

    after_layer: int
    n_keep: int
    defers_layer: bool = False
    looks_ahead: bool = False


Drops = tuple[CountedDrop, ...]
"""In the order of their layers; none where nothing is pruned."""


def drops_of(method: Method, n_visual: int, n_kept: int | None = None) -> Drops:
    """What a method does to an image of ``n_visual`` tokens.

    Args:
        method: that prunes.
        n_visual: of the image.
        n_kept: how many really stayed at the end, where that depends on the content; None for the most.
    """
    if not method.prunes(n_visual):
        return ()
    counts = [count for _, count in method.schedule(n_visual, n_kept)]
    return tuple(
        CountedDrop(
            stage.drop_after_layer,
            count,
            defers_layer=number == 0 and stage.defers_layer,
            looks_ahead=stage.reads_next_layer,
        )
        for number, (stage, count) in enumerate(zip(method.stages, counts, strict=True))
    )


@dataclass(frozen=True)
class StackShape:
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
class ModelShape:
    """What a checkpoint's cost depends on.

    Attributes:
        vision: the tower.
        patches: of a tile; the tower sees a class token besides.
        patch_values: numbers in a patch, over all colours.
        text: the decoder.
        tokens_per_tile: visual tokens that a tile becomes.
        vocabulary: rows of the output head.
    """

    vision: StackShape
    patches: int
    patch_values: int
    text: StackShape
    tokens_per_tile: int
    vocabulary: int

    @classmethod
    def from_config(cls, config: ModelConfig) -> ModelShape:
        """The shape of a model with this configuration."""
        vision, text = config.vision_config, config.text_config
        (height, width), (patch_height, patch_width) = vision.image_size, vision.patch_size
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        return cls(
            vision=StackShape(
                vision.num_hidden_layers,
                vision.hidden_size,
                vision.hidden_size,
                vision.hidden_size,
                vision.intermediate_size,
                mlp_matrices=2,
            ),
            patches=(height // patch_height) * (width // patch_width),
            patch_values=vision.num_channels * patch_height * patch_width,
            text=StackShape(
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
        suffix: the expression and what closes the prompt.
    """

    before_image: int
    visual: int
    after_image: int
    suffix: int

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint | Layout, n_visual: int, n_expression: int) -> PromptLengths:
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
        return self.before_image + n_visual + self.after_image + self.suffix
