"""Auxiliary heads that train the vision side before the language model is trained. They are dropped afterwards.

From each projected visual token, the heads predict the object under it. They use the language model's representations:
an attribute is classified by the dot product with the embeddings of its words, as in CLIP (Radford et al. 2021,
arXiv:2103.00020), and a box is also predicted through the number rows of the output head. These losses do not update
the embeddings or the output head. No layer of the language model takes part, and no loss trains it where to attend,
because its attention is the subject of studies with this model.
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
_REACH = 2.0  # pixels; a token whose centre lies at most this far outside of a box still belongs to it
_BOX_UNIT = 48.0  # pixels; the unit of the offsets from a token's centre
_SIGMA = 12.0  # thousandths of the image; standard deviation of a coordinate's targets
_CLASSES = {"shape": SHAPES, "colour": tuple(COLOURS), "size": SIZES}
_SHARPNESS = 0.2  # scale of the attribute logits; a smaller scale needs larger dot products for the same loss
_EMPTY = -1  # class of a token without an object


class Heads(nn.Module):
    """Predicts from each visual token whether an object lies under it, and the object's attributes and box.

    The attributes are shape, colour and size. The box is predicted twice: as offsets from the token's centre, and as
    four integers from 0 to 1000.

    Args:
        hidden: width of the language model.
        tokens: the demo's tokenizer; gives the ids of the words for attributes.
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
        """Compute the dense loss on projected visual tokens.

        Args:
            model: the whole demo model; its embeddings and output head get no gradient.
            features: projected visual tokens of one tile per scene, [scenes, 144, hidden].
            scenes: the scenes, in the same order.

        Returns:
            The loss, a scalar, and metrics for the log: the shares of correct shapes, colours and sizes, the mean
            error of the offsets in pixels of the 192 x 192 tile, and that of the integers.
        """
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
    """Compute the mean Kullback-Leibler divergence between number targets and predictions.

    Each target is a discretised Gaussian over the integers 0 to 1000 around the right integer.

    Args:
        logits: [n, vocabulary], at least 1001 wide; token ids 0 to 1000 are the integers.
        wanted: [n] int64, the right integers.
        sigma: standard deviation of the Gaussian.
    """
    distance = torch.arange(NUMBERS) - wanted[:, None]
    spread = torch.exp(-0.5 * (distance / sigma) ** 2)
    spread = spread / spread.sum(1, keepdim=True)
    return functional.kl_div(logits.log_softmax(-1)[:, :NUMBERS], spread, reduction="batchmean")


def targets(scenes: Sequence[Scene]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Find the object under each visual token, with each image scaled to one tile of 192 x 192 pixels.

    Returns:
        Three tensors. Classes, [scenes, 144, 3] int64: indices of shape, colour and size; -1 where there is no object.
        Boxes, [scenes, 144, 4] int64: xyxy in thousandths of the image. Offsets, [scenes, 144, 4] float32: xyxy
        relative to the token's centre, in units of 48 pixels.
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
