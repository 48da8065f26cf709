"""The classes of the model and its configuration, under the names that the engine imports."""

from transformers import InternVLConfig as ModelConfig
from transformers import InternVLForConditionalGeneration as Model

__all__ = ["Model", "ModelConfig"]
