"""The published sizes of InternVL2.5 and InternVL3, and a small size to measure speed without a GPU.

The numbers are from the ``config.json`` of OpenGVLab's InternVL2.5 checkpoints; InternVL3's language models have the
dimensions of Qwen2.5's. Only those that determine the shape of a tensor are here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

SEE_CARD = "see the card"


@dataclass(frozen=True)
class HalfShape:
    """The dimensions of one half of a model, the vision tower or the language model.

    Attributes:
        hidden: width.
        layers: number of layers.
        heads: number of attention heads.
        intermediate: width of the MLPs.
        kv_heads: number of key and value heads; language model only.
        vocabulary: number of token ids; language model only.
    """

    hidden: int
    layers: int
    heads: int
    intermediate: int
    kv_heads: int = 0
    vocabulary: int = 0


@dataclass(frozen=True)
class PublishedSize:
    """One size of the model.

    Attributes:
        name: name of the size, as in ``random:NAME``.
        parameters: number of parameters.
        vision: dimensions of the vision tower: InternViT 300M, InternViT 6B or a small one.
        family: class name of the language model in the original ``config.json``.
        text: dimensions of the language model.
        licence: tag of the model card on the hub; `SEE_CARD` where it was not looked up.
        repository: name on the hub, with ``{}`` for the size.
        layout: of the checkpoint: ``original`` or ``native``.
    """

    name: str
    parameters: int
    vision: HalfShape
    family: str
    text: HalfShape
    licence: str = "MIT"
    repository: str = "OpenGVLab/InternVL2_5-{}"
    layout: Literal["original", "native"] = "original"

    @property
    def hub_name(self) -> str:
        """The checkpoint of this size on the hub."""
        return self.repository.format(self.name.upper())

    def original_config(self) -> dict[str, Any]:
        """Return the fields of the original ``config.json`` that describe the model of this size."""
        is_6b = self.vision is _VIT_6B
        return {
            "downsample_ratio": 0.5,
            "force_image_size": 448,
            "ps_version": "v2",
            "select_layer": -1,
            "template": "internvl2_5",
            "use_thumbnail": True,
            "vision_config": _dimensions(self.vision)
            | {
                "image_size": 448,
                "patch_size": 14,
                "hidden_act": "gelu",
                "layer_norm_eps": 1e-6,
                "norm_type": "rms_norm" if is_6b else "layer_norm",
                "qk_normalization": is_6b,
                "qkv_bias": not is_6b,
            },
            "llm_config": _dimensions(self.text)
            | {
                "architectures": [self.family],
                "num_key_value_heads": self.text.kv_heads,
                "vocab_size": self.text.vocabulary,
                "hidden_act": "silu",
                "max_position_embeddings": 32768,
                "rms_norm_eps": 1e-5 if self.family == _INTERNLM2 else 1e-6,
                "rope_theta": 1_000_000.0,
                "rope_scaling": {"type": "dynamic", "factor": 2.0},
            },
        }


def _dimensions(half: HalfShape) -> dict[str, Any]:
    return {
        "hidden_size": half.hidden,
        "num_hidden_layers": half.layers,
        "num_attention_heads": half.heads,
        "intermediate_size": half.intermediate,
    }


_VIT_300M = HalfShape(hidden=1024, layers=24, heads=16, intermediate=4096)
_VIT_MINI = HalfShape(hidden=128, layers=2, heads=2, intermediate=512)
_VIT_6B = HalfShape(hidden=3200, layers=45, heads=25, intermediate=12800)
_INTERNLM2, _QWEN2 = "InternLM2ForCausalLM", "Qwen2ForCausalLM"
_INTERNLM2_VOCABULARY, _QWEN2_VOCABULARY = 92553, 151674

SIZES = (
    PublishedSize("1b", 938_193_024, _VIT_300M, _QWEN2, HalfShape(896, 24, 14, 4864, 2, _QWEN2_VOCABULARY), SEE_CARD),
    PublishedSize("2b", 2_205_754_368, _VIT_300M, _INTERNLM2, HalfShape(2048, 24, 16, 8192, 8, _INTERNLM2_VOCABULARY)),
    PublishedSize("4b", 3_712_637_952, _VIT_300M, _QWEN2, HalfShape(2048, 36, 16, 11008, 2, _QWEN2_VOCABULARY)),
    PublishedSize("8b", 8_075_365_376, _VIT_300M, _INTERNLM2, HalfShape(4096, 32, 32, 14336, 8, _INTERNLM2_VOCABULARY)),
    PublishedSize("26b", 25_514_186_112, _VIT_6B, _INTERNLM2, HalfShape(6144, 48, 48, 16384, 8, _INTERNLM2_VOCABULARY)),
    PublishedSize(
        "38b", 38_388_164_992, _VIT_6B, _QWEN2, HalfShape(5120, 64, 40, 27648, 8, _QWEN2_VOCABULARY), SEE_CARD
    ),
    PublishedSize(
        "78b", 78_408_318_336, _VIT_6B, _QWEN2, HalfShape(8192, 80, 64, 29568, 8, _QWEN2_VOCABULARY), SEE_CARD
    ),
)

_internvl3 = partial(PublishedSize, licence=SEE_CARD, repository="OpenGVLab/InternVL3-{}-hf", layout="native")
INTERNVL3 = (
    _internvl3("1b", 938_193_024, _VIT_300M, _QWEN2, HalfShape(896, 24, 14, 4864, 2, _QWEN2_VOCABULARY)),
    _internvl3("2b", 2_088_957_440, _VIT_300M, _QWEN2, HalfShape(1536, 28, 12, 8960, 2, _QWEN2_VOCABULARY)),
    _internvl3(
        "8b", 7_944_373_760, _VIT_300M, _QWEN2, HalfShape(3584, 28, 28, 18944, 4, _QWEN2_VOCABULARY), licence="Qwen"
    ),
    _internvl3("14b", 15_117_256_704, _VIT_300M, _QWEN2, HalfShape(5120, 48, 40, 13824, 8, _QWEN2_VOCABULARY)),
    _internvl3("38b", 38_388_164_992, _VIT_6B, _QWEN2, HalfShape(5120, 64, 40, 27648, 8, _QWEN2_VOCABULARY)),
    _internvl3("78b", 78_408_318_336, _VIT_6B, _QWEN2, HalfShape(8192, 80, 64, 29568, 8, _QWEN2_VOCABULARY)),
)
"""Those with Qwen2.5; the 9B has another language model."""

MINI = PublishedSize("mini", 122_093_696, _VIT_MINI, _INTERNLM2, HalfShape(512, 32, 8, 1792, 2, 11_600))
"""As many layers as the 8B, and an eighth of its width: a measurement on a CPU takes seconds."""
