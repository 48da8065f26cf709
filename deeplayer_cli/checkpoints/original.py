"""The original layout, that of OpenGVLab (``model_type: internvl_chat``), read without its remote code.

Tensor names and the split of ``wqkv`` follow huggingface/transformers, ``internvl/convert_internvl_weights_to_hf.py``.
The configuration follows OpenGVLab/InternVL,
``internvl_chat/internvl/model/internvl_chat/configuration_internvl_chat.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from transformers import InternVLConfig, InternVLVisionConfig, LlamaConfig, Qwen2Config

from deeplayer_cli.checkpoints.layout import Layout, refuse_bad_config, tokens_per_tile
from deeplayer_cli.checkpoints.tokenizer import FastTokenizer, SentencePieceTokenizer, Tokenizer
from deeplayer_cli.checkpoints.weights import TensorRule, thirds
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.models.internvl.prompt import IMAGE_CONTEXT, INTERNVL2_5_SYSTEM, internvl2_5
from deeplayer_cli.models.internvl.tiling import Tiling

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

# Settings that the native model or the prompt relies on: key, default of the original, the only supported value.
_RELIED_ON: tuple[tuple[str, Any, Any], ...] = (
    ("template", None, "internvl2_5"),
    ("ps_version", "v1", "v2"),
    ("select_layer", -1, -1),
)
_MAX_TILES = 6  # as in the official grounding evaluation, not the 12 of config.json

_VIT, _NATIVE_VIT = "vision_model.encoder.layers.{layer}.", "model.vision_tower.encoder.layer.{layer}."
_VISION_RULES = (
    TensorRule("vision_model.embeddings.class_embedding", ("model.vision_tower.embeddings.cls_token",)),
    TensorRule("vision_model.embeddings.position_embedding", ("model.vision_tower.embeddings.position_embeddings",)),
    TensorRule(
        "vision_model.embeddings.patch_embedding.{kind}",
        ("model.vision_tower.embeddings.patch_embeddings.projection.{kind}",),
    ),
    TensorRule(
        f"{_VIT}attn.qkv.{{kind}}", tuple(f"{_NATIVE_VIT}attention.{part}_proj.{{kind}}" for part in "qkv"), thirds
    ),
    TensorRule(f"{_VIT}attn.proj.{{kind}}", (f"{_NATIVE_VIT}attention.projection_layer.{{kind}}",)),
    TensorRule(f"{_VIT}attn.q_norm.weight", (f"{_NATIVE_VIT}attention.q_norm.weight",)),
    TensorRule(f"{_VIT}attn.k_norm.weight", (f"{_NATIVE_VIT}attention.k_norm.weight",)),
    TensorRule(f"{_VIT}mlp.{{rest}}", (f"{_NATIVE_VIT}mlp.{{rest}}",)),
    TensorRule(f"{_VIT}norm1.{{kind}}", (f"{_NATIVE_VIT}layernorm_before.{{kind}}",)),
    TensorRule(f"{_VIT}norm2.{{kind}}", (f"{_NATIVE_VIT}layernorm_after.{{kind}}",)),
    TensorRule(f"{_VIT}ls1", (f"{_NATIVE_VIT}lambda_1",)),
    TensorRule(f"{_VIT}ls2", (f"{_NATIVE_VIT}lambda_2",)),
    TensorRule("mlp1.0.{kind}", ("model.multi_modal_projector.layer_norm.{kind}",)),
    TensorRule("mlp1.1.{kind}", ("model.multi_modal_projector.linear_1.{kind}",)),
    TensorRule("mlp1.3.{kind}", ("model.multi_modal_projector.linear_2.{kind}",)),
)

_LLM, _NATIVE_LLM = "language_model.model.layers.{layer}.", "model.language_model.layers.{layer}."


def internlm2_rules(text: LlamaConfig) -> tuple[TensorRule, ...]:
    """Return the rules that map InternLM2's tensors to the native model.

    Args:
        text: configuration of the language model; gives the split of ``wqkv``.
    """
    split = partial(grouped, kv_heads=text.num_key_value_heads, head_dim=text.head_dim)
    names = {
        "attention.wo": "self_attn.o_proj",
        "feed_forward.w1": "mlp.gate_proj",
        "feed_forward.w3": "mlp.up_proj",
        "feed_forward.w2": "mlp.down_proj",
        "attention_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
    }
    return (
        TensorRule(
            f"{_LLM}attention.wqkv.weight", tuple(f"{_NATIVE_LLM}self_attn.{part}_proj.weight" for part in "qkv"), split
        ),
        *(TensorRule(f"{_LLM}{old}.weight", (f"{_NATIVE_LLM}{new}.weight",)) for old, new in names.items()),
        TensorRule("language_model.model.tok_embeddings.weight", ("model.language_model.embed_tokens.weight",)),
        TensorRule("language_model.model.norm.weight", ("model.language_model.norm.weight",)),
        TensorRule("language_model.output.weight", ("lm_head.weight",)),
    )


def qwen2_rules(_: Qwen2Config) -> tuple[TensorRule, ...]:
    """Return the rules that map Qwen2's tensors to the native model; their names differ in the prefix only."""
    return (
        TensorRule("language_model.model.{rest}", ("model.language_model.{rest}",)),
        TensorRule("language_model.lm_head.weight", ("lm_head.weight",)),
    )


def grouped(wqkv: Tensor, *, kv_heads: int, head_dim: int) -> tuple[Tensor, ...]:
    """Split InternLM2's fused projection into query, key and value.

    Args:
        wqkv: [kv_heads * (groups + 2) * head_dim, hidden]. For each key head, the rows are those of its group of query
            heads, of the key, and of the value.
        kv_heads: number of key and value heads.
        head_dim: width of a head.

    Returns:
        Query, [kv_heads * groups * head_dim, hidden]; key and value, each [kv_heads * head_dim, hidden].
    """
    heads = wqkv.view(kv_heads, -1, head_dim, *wqkv.shape[1:])
    return tuple(part.reshape(-1, *wqkv.shape[1:]) for part in (heads[:, :-2], heads[:, -2], heads[:, -1]))


@dataclass(frozen=True)
class DecoderFamily:
    """The parts of the original layout that depend on the language model.

    Attributes:
        config: class of the language model's configuration.
        rules: returns the rules for the tensors, from the language model's configuration.
        tokenizer: reads the tokenizer from the checkpoint folder.
    """

    config: Callable[..., LlamaConfig | Qwen2Config]
    rules: Callable[[Any], tuple[TensorRule, ...]]
    tokenizer: Callable[[Path], Tokenizer]


_LANGUAGE_MODELS = {
    "InternLM2ForCausalLM": DecoderFamily(LlamaConfig, internlm2_rules, SentencePieceTokenizer.read),
    "Qwen2ForCausalLM": DecoderFamily(Qwen2Config, qwen2_rules, FastTokenizer.read),
}


def read(folder: Path, config: dict[str, Any]) -> Layout:
    """Describe a checkpoint folder in the original layout.

    Args:
        folder: folder with the tokenizer's files.
        config: content of its ``config.json``.

    Raises:
        DeeplayerError: a file is missing or damaged, or a value in it is not supported. The message names the file and
            the value.
    """
    path = folder / "config.json"
    for key, default, needed in _RELIED_ON:
        if (value := config.get(key, default)) != needed:
            raise DeeplayerError(f"{path} has {key} {value!r}; only {needed!r} (InternVL 2.5 and 3) is supported")
    with refuse_bad_config(path):
        language_model = _language_model(path, config)
        tokenizer = language_model.tokenizer(folder)
        native = internvl_config(config, tokenizer.token_id(IMAGE_CONTEXT))
        if config.get("force_image_size") not in (None, side := native.vision_config.image_size[0]):
            raise ValueError(f"force_image_size {config['force_image_size']} differs from the vision model's {side}")
        return Layout(
            config=native,
            tokenizer=tokenizer,
            prompt=internvl2_5(config.get("system_message") or INTERNVL2_5_SYSTEM),
            tiling=Tiling(tile_size=side, max_tiles=_MAX_TILES, thumbnail=bool(config.get("use_thumbnail", False))),
            rules=_VISION_RULES + language_model.rules(native.text_config),
        )


def internvl_config(config: dict[str, Any], image_token_id: int) -> InternVLConfig:
    """Translate the content of an original ``config.json`` into transformers' configuration.

    Args:
        config: content of ``config.json``.
        image_token_id: id of the placeholder for a visual token.

    Raises:
        KeyError: a field is missing.
        ValueError: a value is not supported.
    """
    vision, text = config["vision_config"], config["llm_config"]
    if vision.get("qk_normalization") and vision["layer_norm_eps"] != 1e-6:
        raise ValueError(f"layer_norm_eps {vision['layer_norm_eps']} with qk_normalization; only 1e-06 is supported")
    if text.get("bias"):
        raise ValueError("an InternLM2 with biases is not supported")
    native = InternVLConfig(
        vision_config=InternVLVisionConfig(
            hidden_size=vision["hidden_size"],
            num_hidden_layers=vision["num_hidden_layers"],
            num_attention_heads=vision["num_attention_heads"],
            intermediate_size=vision["intermediate_size"],
            hidden_act=vision["hidden_act"],
            image_size=vision["image_size"],
            patch_size=vision["patch_size"],
            norm_type=vision["norm_type"],
            layer_norm_eps=vision["layer_norm_eps"],
            attention_bias=vision["qkv_bias"],
            use_qk_norm=vision["qk_normalization"],
            use_mean_pooling=True,  # no pooling here: it omits a last norm, as the original does
        ),
        text_config=_LANGUAGE_MODELS[text["architectures"][0]].config(
            vocab_size=text["vocab_size"],
            hidden_size=text["hidden_size"],
            num_hidden_layers=text["num_hidden_layers"],
            num_attention_heads=text["num_attention_heads"],
            num_key_value_heads=text["num_key_value_heads"],
            intermediate_size=text["intermediate_size"],
            hidden_act=text["hidden_act"],
            max_position_embeddings=text["max_position_embeddings"],
            rms_norm_eps=text["rms_norm_eps"],
            rope_theta=text["rope_theta"],
            rope_scaling=dict(text.get("rope_scaling") or {}) or None,
            bos_token_id=text.get("bos_token_id"),
            eos_token_id=text.get("eos_token_id"),
            pad_token_id=text.get("pad_token_id"),
        ),
        image_token_id=image_token_id,
        downsample_ratio=config["downsample_ratio"],
        tie_word_embeddings=bool(text.get("tie_word_embeddings", False)),
    )
    native.image_seq_length = tokens_per_tile(native)
    return native


def _language_model(path: Path, config: dict[str, Any]) -> DecoderFamily:
    family = config["llm_config"]["architectures"][0]
    if family not in _LANGUAGE_MODELS:
        known = " and ".join(_LANGUAGE_MODELS)
        raise DeeplayerError(
            f"{path} has the language model {family}; supported are {known}: use another size or its -hf form"
        )
    return _LANGUAGE_MODELS[family]
