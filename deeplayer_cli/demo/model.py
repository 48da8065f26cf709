"""The demo model: transformers' InternVL architecture with 2.2 million parameters.

A tile has 192 x 192 pixels. Patches of 8 x 8 pixels and a pixel shuffle by 2 in both directions give 144 visual tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from transformers import InternVLConfig, InternVLForConditionalGeneration, InternVLVisionConfig, LlamaConfig

from deeplayer_cli.demo.scenes import SIDE
from deeplayer_cli.demo.tokenizer import NUMBERS

VISUAL_TOKENS = 144
_PATCH = 8
_KINSHIP = 2.0  # scale of the initial query and key weights relative to the other weights


@dataclass(frozen=True)
class DemoSize:
    """Dimensions of the model; the defaults are those of the shipped model.

    Attributes:
        hidden: width of the vision tower and of the language model.
        vision_layers: number of vision layers.
        vision_mlp: width of the vision MLPs.
        layers: number of decoder layers.
        mlp: width of the decoder MLPs.
        heads: attention heads of both halves.
        kv_heads: key and value heads of the language model.
    """

    hidden: int = 128
    vision_layers: int = 2
    vision_mlp: int = 384
    layers: int = 8
    mlp: int = 320
    heads: int = 4
    kv_heads: int = 2


def build(size: DemoSize, vocabulary: int, image_token: int, end_token: int) -> InternVLForConditionalGeneration:
    """Build the model with initial weights for training, drawn from torch's global random generator.

    Args:
        size: dimensions of the model.
        vocabulary: number of token ids.
        image_token: id of the placeholder for a visual token.
        end_token: id of the token that ends an answer.
    """
    vision = InternVLVisionConfig(
        hidden_size=size.hidden,
        num_hidden_layers=size.vision_layers,
        num_attention_heads=size.heads,
        intermediate_size=size.vision_mlp,
        image_size=(SIDE, SIDE),
        patch_size=(_PATCH, _PATCH),
        attention_bias=True,
        layer_scale_init_value=1.0,
        use_mean_pooling=True,
        norm_type="layer_norm",
    )
    text = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.mlp,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},  # InternLM2's; most pairs turn little in a prompt
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=end_token,
        pad_token_id=end_token,
    )
    config = InternVLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=image_token,
        image_seq_length=VISUAL_TOKENS,
        downsample_ratio=0.5,
        tie_word_embeddings=False,
        eos_token_id=end_token,
        pad_token_id=end_token,
    )
    model = InternVLForConditionalGeneration(config)
    _initialise(model, size.hidden)
    return model


@torch.no_grad()
def _initialise(model: InternVLForConditionalGeneration, hidden: int) -> None:
    """Set initial weights that speed up training.

    The embeddings of the numbers encode their order, and the position embeddings of the patches encode their places.
    The output head starts as a scaled copy of the embeddings. In every decoder layer the query weights start equal to
    the key weights (Trockman and Kolter 2023, "Mimetic Initialization of Self-Attention Layers", arXiv:2305.09828), so
    a query matches keys of similar hidden states. This applies to all words equally.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5 / 2)
    language, vision = model.model.language_model, model.model.vision_tower
    for layer in language.layers:
        attention = layer.self_attn
        attention.k_proj.weight *= _KINSHIP
        keys = attention.k_proj.weight.unflatten(0, (-1, attention.head_dim))
        attention.q_proj.weight.copy_(keys.repeat_interleave(attention.num_key_value_groups, 0).flatten(0, 1))
    embeddings = vision.embeddings
    patch = embeddings.patch_embeddings.projection
    nn.init.normal_(patch.weight, std=patch.weight[0].numel() ** -0.5)
    embeddings.position_embeddings[0, 1:] = _sine_2d(SIDE // _PATCH, hidden)
    nn.init.normal_(language.embed_tokens.weight, std=0.5)
    language.embed_tokens.weight[:NUMBERS] = 0.5 * fourier(torch.arange(NUMBERS) / (NUMBERS - 1), hidden)
    model.lm_head.weight.copy_(0.2 * language.embed_tokens.weight)


def fourier(values: torch.Tensor, width: int) -> torch.Tensor:
    """Encode values as sines and cosines of ``width // 2`` frequencies, from 1/4 to 40 periods in [0, 1].

    Args:
        values: [...] float, in [0, 1].
        width: even width of the code.

    Returns:
        [..., width] with mean square 1.
    """
    frequencies = torch.logspace(math.log10(0.25), math.log10(40.0), width // 2)
    angles = 2 * math.pi * values[..., None] * frequencies
    return torch.cat((angles.sin(), angles.cos()), dim=-1) * math.sqrt(2)


def _sine_2d(side: int, width: int) -> torch.Tensor:
    """Return position codes [side * side, width], row-major: the first half encodes the row, the second the column."""
    line = fourier((torch.arange(side) + 0.5) / side, width // 2)
    rows, columns = line[:, None].expand(side, side, -1), line[None].expand(side, side, -1)
    return torch.cat((rows, columns), dim=-1).reshape(side * side, width)
