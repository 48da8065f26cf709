"""Tiny checkpoints, written the way their publishers write them and independently of the code under test."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    LlamaConfig,
    Qwen2Config,
)

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>"]
SPECIAL += ["<ref>", "</ref>", "<box>", "</box>"]
VOCABULARY = 300
HF_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}"
    "{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def byte_level() -> Tokenizer:
    """Qwen2's kind: byte-level pieces, no beginning-of-sequence token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("m", "a"), ("ma", "n"), ("r", "e"), ("re", "f")]
    vocabulary = {piece: id for id, piece in enumerate([*alphabet, *map("".join, merges)])}
    backend = Tokenizer(models.BPE(vocabulary, merges))
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def tokenizer() -> Tokenizer:
    backend = byte_level()
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    return backend


def model(*, text: str = "qwen2", vision: str = "300m", tied: bool = False) -> InternVLForConditionalGeneration:
    """A native model with weights that no two tensors share."""
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    large = vision == "6b"
    vision_config = InternVLVisionConfig(
        **shape,
        image_size=28,
        patch_size=7,
        attention_bias=not large,
        use_qk_norm=large,
        norm_type="rms_norm" if large else "layer_norm",
        use_mean_pooling=True,
    )
    text_config = {"llama": LlamaConfig, "qwen2": Qwen2Config}[text](
        **shape,
        num_key_value_heads=2,
        vocab_size=VOCABULARY,
        max_position_embeddings=512,
        rope_theta=1e6,
        rope_scaling={"type": "dynamic", "factor": 2.0},
    )
    config = InternVLConfig(
        vision_config=vision_config,
        text_config=text_config,
        image_token_id=tokenizer().token_to_id("<IMG_CONTEXT>"),
        image_seq_length=4,
        tie_word_embeddings=tied,
    )
    torch.manual_seed(7)
    native = InternVLForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in native.parameters():
            parameter.normal_(std=0.3)
    return native


@torch.inference_mode()
def logits(native: InternVLForConditionalGeneration) -> Tensor:
    """Logits of one prompt with two tiles: every parameter takes part."""
    generator = torch.Generator().manual_seed(3)
    dtype = next(native.parameters()).dtype
    pixels = torch.randn(2, 3, 28, 28, generator=generator).to(dtype)
    image = native.config.image_token_id
    return native(input_ids=torch.tensor([[5, 9, *[image] * 8, 17, 44, 3]]), pixel_values=pixels).logits


def original_tensors(native: InternVLForConditionalGeneration) -> dict[str, Tensor]:
    """The state dict under OpenGVLab's names."""
    state = {name: tensor.contiguous() for name, tensor in native.state_dict().items()}
    if native.config.tie_word_embeddings:
        del state["lm_head.weight"]
    for name in [name for name in state if ".attention.q_proj." in name]:
        fused = [state.pop(name.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        state[name.replace("attention.q_proj", "attn.qkv")] = torch.cat(fused)
    renames = {
        r"^model\.vision_tower\.": "vision_model.",
        r"embeddings\.cls_token": "embeddings.class_embedding",
        r"position_embeddings": "position_embedding",
        r"patch_embeddings\.projection": "patch_embedding",
        r"encoder\.layer\.": "encoder.layers.",
        r"attention\.projection_layer": "attn.proj",
        r"attention\.(q|k)_norm": r"attn.\1_norm",
        r"layernorm_before": "norm1",
        r"layernorm_after": "norm2",
        r"lambda_": "ls",
        r"^model\.multi_modal_projector\.layer_norm": "mlp1.0",
        r"^model\.multi_modal_projector\.linear_1": "mlp1.1",
        r"^model\.multi_modal_projector\.linear_2": "mlp1.3",
        r"^model\.language_model": "language_model.model",
        r"^lm_head": "language_model.lm_head",
    }
    for pattern, replacement in renames.items():
        state = {re.sub(pattern, replacement, name): tensor for name, tensor in state.items()}
    return state


def original_config(native: InternVLForConditionalGeneration) -> dict[str, Any]:
    vision, text = native.config.vision_config, native.config.text_config
    shared = ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act"]
    return {
        "model_type": "internvl_chat",
        "auto_map": {"AutoConfig": "evil.Evil"},
        "downsample_ratio": 0.5,
        "force_image_size": 28,
        "ps_version": "v2",
        "select_layer": -1,
        "template": "internvl2_5",
        "use_thumbnail": True,
        "vision_config": {key: getattr(vision, key) for key in shared}
        | {
            "image_size": 28,
            "patch_size": 7,
            "norm_type": vision.norm_type,
            "layer_norm_eps": vision.layer_norm_eps,
            "qkv_bias": vision.attention_bias,
            "qk_normalization": vision.use_qk_norm,
        },
        "llm_config": {key: getattr(text, key) for key in shared}
        | {
            "architectures": ["Qwen2ForCausalLM"],
            "vocab_size": VOCABULARY,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "rms_norm_eps": text.rms_norm_eps,
            "rope_theta": 1e6,
            "rope_scaling": {"type": "dynamic", "factor": 2.0},
            "tie_word_embeddings": native.config.tie_word_embeddings,
        },
    }


def write_original(folder: Path, native: InternVLForConditionalGeneration) -> Path:
    write_json(folder / "config.json", original_config(native))
    tokenizer().save(str(folder / "tokenizer.json"))
    save_file(original_tensors(native), folder / "model.safetensors")
    return folder


def write_native(folder: Path, native: InternVLForConditionalGeneration) -> Path:
    native.save_pretrained(folder)
    tokenizer().save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {"eos_token": "<|im_end|>", "bos_token": {"content": "<s>"}})
    (folder / "chat_template.jinja").write_text(HF_TEMPLATE)
    write_json(
        folder / "preprocessor_config.json",
        {
            "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225],
            "size": {"height": 28, "width": 28},
            "max_patches": 12,
            "min_patches": 1,
        },
    )
    return folder


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def edit_json(path: Path, changes: dict[str, Any]) -> None:
    """Change top-level keys, or ``section.key`` ones; None removes."""
    content = json.loads(path.read_text(encoding="utf-8"))
    for key, value in changes.items():
        section, _, leaf = key.rpartition(".")
        owner = content[section] if section else content
        owner.pop(leaf, None)
        if value is not None:
            owner[leaf] = value
    write_json(path, content)
