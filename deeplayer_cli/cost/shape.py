"""The inputs of the cost model: dimensions of a model, and lengths of a prompt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from deeplayer_cli.models.internvl.answer_format import TemplateDraft

if TYPE_CHECKING:
    from deeplayer_cli.checkpoints import Checkpoint, Layout
    from deeplayer_cli.models.internvl.model import ModelConfig


@dataclass(frozen=True)
class StackShape:
    """The dimensions of a stack of equal layers.

    Attributes:
        layers: number of layers.
        hidden: width of the hidden states.
        queries: number of query heads times head dimension.
        keys: number of key heads times head dimension; the same for values.
        intermediate: width of the MLP.
        mlp_matrices: number of matrices in the MLP: 2, or 3 for a gated MLP.
        causal_share: the share of a square of attention that counts under a causal mask.
    """

    layers: int
    hidden: int
    queries: int
    keys: int
    intermediate: int
    mlp_matrices: int
    causal_share: float = 1.0

    def query_flops(self, n_tokens: int) -> int:
        """FLOPs of queries, output projection and MLP of one layer."""
        return 2 * n_tokens * self.hidden * (2 * self.queries + self.mlp_matrices * self.intermediate)

    def key_flops(self, n_tokens: int) -> int:
        """FLOPs of keys and values of one layer."""
        return 2 * n_tokens * self.hidden * 2 * self.keys

    def attention_flops(self, n_queries: int, n_keys: int) -> int:
        """FLOPs of the two matrix products of attention in one layer."""
        return 4 * n_queries * n_keys * self.queries

    def causal_flops(self, n_tokens: int) -> int:
        """FLOPs of the two matrix products of attention in one layer, of tokens to those up to their own place."""
        return round(self.causal_share * self.attention_flops(n_tokens, n_tokens))

    def layer_flops(self, n_tokens: int, n_keys: int) -> int:
        """FLOPs of one layer over ``n_tokens`` that attend to ``n_keys`` keys, their own included."""
        return self.query_flops(n_tokens) + self.key_flops(n_tokens) + self.attention_flops(n_tokens, n_keys)


@dataclass(frozen=True)
class ModelShape:
    """The dimensions of a checkpoint that its cost depends on.

    Attributes:
        vision: the vision tower.
        patches: number of patches of a tile, without the class token.
        patch_values: number of values in a patch, over all colours.
        text: the decoder of the language model.
        tokens_per_tile: number of visual tokens of a tile.
        vocabulary: number of rows of the output head.
    """

    vision: StackShape
    patches: int
    patch_values: int
    text: StackShape
    tokens_per_tile: int
    vocabulary: int

    @property
    def language_parameters(self) -> int:
        """Number of weights of the language model's matrices and its head: each costs a token 2 FLOPs."""
        text = self.text
        return text.layers * (text.query_flops(1) + text.key_flops(1)) // 2 + text.hidden * self.vocabulary

    def without_hidden_pairs(self) -> ModelShape:
        """The shape whose FLOPs leave out what a causal mask hides, as attention kernels do where no mask is given."""
        return replace(self, text=replace(self.text, causal_share=0.5))

    @classmethod
    def from_config(cls, config: ModelConfig) -> ModelShape:
        """Read the dimensions from a model's configuration."""
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
    """Number of tokens of each part of a prompt.

    Attributes:
        before_image: P0. It is the same for every prompt, so it runs once, before the first, and costs nothing later.
        visual: the visual tokens of the image, before any drop.
        after_image: P1, the text after the image that is the same for every expression.
        suffix: the expression and the closing.
        draft: the drafted beginning of the answer, up to the first number; counted only where a scout reads it.
    """

    before_image: int
    visual: int
    after_image: int
    suffix: int
    draft: int = 0

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint | Layout, n_visual: int, n_expression: int) -> PromptLengths:
        """The lengths of a prompt with ``n_visual`` visual tokens and an expression of ``n_expression`` tokens."""
        tokenizer, prompt = checkpoint.tokenizer, checkpoint.prompt
        draft = TemplateDraft.from_tokenizer(tokenizer)
        return cls(
            len(tokenizer.encode(prompt.before_image)),
            n_visual,
            len(tokenizer.encode_piece(prompt.after_image)),
            n_expression + len(tokenizer.encode_piece(prompt.after_expression)),
            len(draft.opening) + n_expression + len(draft.middle),
        )

    @property
    def image(self) -> int:
        """Number of tokens that are shared by all expressions about an image, but not by other images."""
        return self.visual + self.after_image

    @property
    def shared(self) -> int:
        """Number of tokens before the expression: the prefix."""
        return self.before_image + self.image

    def length(self, n_visual: int) -> int:
        """Number of tokens of the whole prompt if it has ``n_visual`` visual tokens."""
        return self.before_image + n_visual + self.after_image + self.suffix
