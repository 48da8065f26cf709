"""The model's classes, by the names that the engine knows them by."""

from transformers import InternVLConfig as ModelConfig
from transformers import InternVLForConditionalGeneration as Model

__all__ = ["Model", "ModelConfig"]
