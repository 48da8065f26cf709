"""Load a checkpoint: its model, tokenizer, prompt and tiling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deeplayer_cli.checkpoints import native, original, random_weights
from deeplayer_cli.checkpoints.files import read_json, stored_tensors
from deeplayer_cli.checkpoints.fitting import require_memory
from deeplayer_cli.checkpoints.layout import Layout, Scope, empty_model, refuse_bad_config
from deeplayer_cli.checkpoints.locate import locate
from deeplayer_cli.checkpoints.weights import plan, stream, targets
from deeplayer_cli.device.packed_linear import pack_linears
from deeplayer_cli.device.placement import Placement
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.models.internvl.vision import use_blocked_attention

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import InternVLConfig, InternVLForConditionalGeneration

    from deeplayer_cli.checkpoints.tokenizer import Tokenizer
    from deeplayer_cli.models.internvl.prompt import GroundingPrompt
    from deeplayer_cli.models.internvl.tiling import Tiling

_ATTENTIONS = ("sdpa", "eager")
_LAYOUTS = {"internvl_chat": original.read, "internvl": native.read}
_MOST_LAYERS = 1000
_END = "<|im_end|>"  # the only stop token of the official evaluation; generation_config.json is not used


@dataclass(frozen=True)
class Checkpoint:
    """A model that is ready to run, with its tokenizer, prompt and tiling.

    Attributes:
        name: name of the model, as given to ``load``.
        model: the model in eval mode, without gradients, on its device and in its dtype.
        tokenizer: tokenizer that gives the same ids as the checkpoint's original one.
        prompt: the grounding question in this model's chat format.
        tiling: how images are cut into tiles for this model.
        eos_id: id of the token that ends an answer.
        grounding_layer: see ``Layout``.
        scope: see ``Layout``.
    """

    name: str
    model: InternVLForConditionalGeneration
    tokenizer: Tokenizer
    prompt: GroundingPrompt
    tiling: Tiling
    eos_id: int
    grounding_layer: int | None = None
    scope: Scope | None = None

    @property
    def config(self) -> InternVLConfig:
        """The configuration of the model."""
        return self.model.config

    @property
    def image_token_id(self) -> int:
        """Id of the placeholder for a visual token in a prompt."""
        return int(self.config.image_token_id)

    @property
    def tokens_per_tile(self) -> int:
        """Number of visual tokens of a tile."""
        return int(self.config.image_seq_length)


def load(
    name: str,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    attention: str = "sdpa",
) -> Checkpoint:
    """Load a model with its tokenizer, prompt and tiling.

    Weights go from disk to the device one tensor at a time, so the peak memory is that of the model and one tensor.

    Args:
        name: a folder, a Hugging Face name, ``demo``, or ``random:SIZE`` such as ``random:8b`` (see
            ``random_weights.py``).
        revision: branch, tag or commit of a Hugging Face name.
        dtype: ``auto`` or the name of a dtype; see ``Placement.choose``.
        device: ``auto`` or the name of a device; see ``Placement.choose``.
        attention: ``sdpa``, or ``eager`` for whole attention maps.

    Raises:
        DeeplayerError: the model does not exist, cannot be downloaded, is damaged or not supported, does not fit into
            memory, or cannot run on this device in this dtype.
    """
    placement = Placement.choose(device, dtype)
    if attention not in _ATTENTIONS:
        raise DeeplayerError(f"unknown attention {attention!r}: choose {' or '.join(_ATTENTIONS)}")
    layout = read_layout(name, revision, placement)
    if name.startswith(random_weights.PREFIX):
        model = empty_model(layout.config, placement.dtype, attention)
        require_memory(name, model.num_parameters(), placement)
        random_weights.fill(model, placement.device)
    else:
        folder = locate(name, revision)
        stored = stored_tensors(folder)
        if "lm_head.weight" in targets(stored, layout.rules):
            # transformers ties the head to the embeddings by default; a stored head has weights of its own
            layout.config.tie_word_embeddings = False
        with refuse_bad_config(folder / "config.json"):
            model = empty_model(layout.config, placement.dtype, attention)
        require_memory(name, model.num_parameters(), placement)
        stream(plan(folder, stored, layout.rules, model), model, placement.device)
    model.tie_weights()
    model.to(placement.device)  # moves the buffers, which are the rotary frequencies
    if placement.device.type == "cpu":
        pack_linears(model, placement.dtype)
        if attention == "sdpa":
            use_blocked_attention(model)
    _require_cuttable(name, layout)
    return Checkpoint(
        name,
        model,
        layout.tokenizer,
        layout.prompt,
        layout.tiling,
        layout.tokenizer.token_id(_END),
        layout.grounding_layer,
        layout.scope,
    )


def read_layout(name: str, revision: str | None = None, placement: Placement | None = None) -> Layout:
    """Read everything about a model except its weights.

    Args:
        name: see ``load``.
        revision: see ``load``.
        placement: see ``locate``.

    Raises:
        DeeplayerError: the model does not exist, cannot be downloaded, is damaged, or is not a supported InternVL.
    """
    if not name.startswith(random_weights.PREFIX):
        return _read_folder(locate(name, revision, placement))
    if revision is not None:
        raise DeeplayerError(f"--revision {revision} is for Hugging Face names, not for {name}: leave it out")
    return random_weights.read(name)


def _read_folder(folder: Path) -> Layout:
    path = folder / "config.json"
    config = read_json(path)
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in _LAYOUTS:
        raise DeeplayerError(f"{path} has model_type {kind!r}: only InternVL ({', '.join(_LAYOUTS)}) can be loaded")
    _refuse_absurd_depth(config, path)
    return _LAYOUTS[kind](folder, config)


def _refuse_absurd_depth(config: dict[str, Any], path: Path) -> None:
    """Refuse a configuration with so many layers that transformers would need very long to read it."""
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        depth = part.get("num_hidden_layers", 0)
        if isinstance(depth, int) and depth > _MOST_LAYERS:
            raise DeeplayerError(f"{path} gives the model {depth:,} layers: do not trust this checkpoint")


def _require_cuttable(name: str, layout: Layout) -> None:
    """Check that the prompt has the same ids when it is encoded piece by piece as when it is encoded whole."""
    tokenizer, prompt = layout.tokenizer, layout.prompt
    word = "man"
    pieces = [
        *tokenizer.encode(prompt.before_image),
        *tokenizer.encode_piece(prompt.after_image),
        *tokenizer.encode_expression(word),
        *tokenizer.encode_piece(prompt.after_expression),
    ]
    if pieces != tokenizer.encode(f"{prompt.before_image}{prompt.after_image}{word}{prompt.after_expression}"):
        raise DeeplayerError(f"the tokenizer of {name} joins text across <ref>: use an InternVL 2.5 or 3 checkpoint")
