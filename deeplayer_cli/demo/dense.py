"""What every visual token should know, taught directly before the language model learns: heads that are dropped after.

They sit on the vision side, on the projected visual tokens. They ask in the terms that the language model will use: an
attribute is the nearest of its words' embeddings, as in CLIP, and a box is read through the number rows of the output
head; neither embeddings nor rows move. No layer of the language model takes part or is ever taught where to look: its
attention is what studies of this model are about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from deeplayer_cli.demo.scenes import SIDE
from deeplayer_cli.demo.shapes import COLOURS, SHAPES, SIZES
from deeplayer_cli.demo.tokenizer import NUMBERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import InternVLForConditionalGeneration, PreTrainedTokenizerFast

    from deeplayer_cli.demo.scenes import Scene

_GRID = 12  # visual tokens along each side
_REACH = 2.0  # pixels around a box within which a token's centre belongs to it
_BOX_UNIT = 48.0  # pixels; offsets from the token's centre are learned in this unit
_SIGMA = 12.0  # thousandths of the image: spread of a coordinate's targets
_CLASSES = {"shape": SHAPES, "colour": tuple(COLOURS), "size": SIZES}
_SHARPNESS = 0.2  # of the attribute losses: the lower, the closer a token must come to its words
_EMPTY = -1


class Heads(nn.Module):
    """From a visual token: is there an object, its shape, colour and size, its box as offsets and as numbers.

    Args:
        hidden: width of the language model.
        tokens: finds the words that name attributes.
    """

    def __init__(self, hidden: int, tokens: PreTrainedTokenizerFast) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(hidden)
        self.present = nn.Linear(hidden, 1)
        self.offsets = nn.Linear(hidden, 4)
        self.numbers = nn.Linear(hidden, 4 * hidden)
        self._words = {
            name: torch.tensor(tokens.convert_tokens_to_ids([f" {word}" for word in words]))
            for name, words in _CLASSES.items()
        }

    def loss(
        self, model: InternVLForConditionalGeneration, features: torch.Tensor, scenes: Sequence[Scene]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Dense loss on projected visual tokens [scenes, 144, hidden], and what the log tells of it."""
        classes, boxes, offsets = targets(scenes)
        filled = classes[..., 0] != _EMPTY
        states = self.norm(features)
        total = functional.binary_cross_entropy_with_logits(self.present(states)[..., 0], filled.float())
        held = states[filled]
        words, right = model.model.language_model.embed_tokens.weight.detach(), {}
        for name, wanted in zip(_CLASSES, classes[filled].unbind(-1), strict=True):
            logits = _SHARPNESS * held @ words[self._words[name]].T
            total = total + functional.cross_entropy(logits, wanted)
            right[name] = (logits.argmax(-1) == wanted).float().mean().item()
        guessed = self.offsets(held)
        total = total + 2.0 * functional.smooth_l1_loss(guessed, offsets[filled], beta=0.1)
        right["offset_error_px"] = (guessed - offsets[filled]).abs().mean().item() * _BOX_UNIT
        logits = self.numbers(held).unflatten(-1, (4, -1)) @ model.lm_head.weight[:NUMBERS].detach().T
        total = total + 0.5 * spread_loss(logits.flatten(0, 1), boxes[filled].flatten(), _SIGMA)
        right["number_error"] = (logits.argmax(-1) - boxes[filled]).abs().float().mean().item()
        return total, right


def spread_loss(logits: torch.Tensor, wanted: torch.Tensor, sigma: float) -> torch.Tensor:
    """Mean divergence of [n, vocabulary >= 1001] logits from a Gaussian over the integers around ``wanted`` (n,)."""
    distance = torch.arange(NUMBERS) - wanted[:, None]
    spread = torch.exp(-0.5 * (distance / sigma) ** 2)
    spread = spread / spread.sum(1, keepdim=True)
    return functional.kl_div(logits.log_softmax(-1)[:, :NUMBERS], spread, reduction="batchmean")


def targets(scenes: Sequence[Scene]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The object under each visual token.

    Returns:
        classes, [scenes, 144, 3] int64 (shape, colour, size; -1 where there is nothing); boxes, [scenes, 144, 4] int64,
        xyxy in thousandths of the image; and offsets, as float, relative to the token's centre in units of 48 of the
        192 pixels that an image is scaled to.
    """
    line = (torch.arange(_GRID) + 0.5) * (SIDE / _GRID)
    classes = torch.full((len(scenes), _GRID, _GRID, len(_CLASSES)), _EMPTY)
    pixels = torch.zeros(len(scenes), _GRID, _GRID, 4)
    centres = torch.stack((line.expand(_GRID, -1), line[:, None].expand(-1, _GRID)), dim=-1).repeat(1, 1, 2)
    for index, scene in enumerate(scenes):
        scale = (SIDE / scene.image.width, SIDE / scene.image.height) * 2
        for thing in scene.objects:
            left, top, right, bottom = box = [edge * factor for edge, factor in zip(thing.box, scale, strict=True)]
            columns = ((line >= left - _REACH) & (line <= right + _REACH)).nonzero()[:, 0]
            rows = ((line >= top - _REACH) & (line <= bottom + _REACH)).nonzero()
            named = [words.index(getattr(thing, name)) for name, words in _CLASSES.items()]
            classes[index, rows, columns] = torch.tensor(named)
            pixels[index, rows, columns] = torch.tensor(box)
    boxes = (pixels / SIDE * (NUMBERS - 1)).round().long()
    return classes.flatten(1, 2), boxes.flatten(1, 2), ((pixels - centres) / _BOX_UNIT).flatten(1, 2)
