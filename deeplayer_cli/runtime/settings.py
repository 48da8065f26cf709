"""How to ground: the settings of a run, without any I/O."""

from __future__ import annotations

import os
from dataclasses import Field, asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from deeplayer_cli import pruning
from deeplayer_cli.errors import DeeplayerError

if TYPE_CHECKING:
    from deeplayer_cli.models.internvl.tiling import Tiling
    from deeplayer_cli.pruning import QueryRowKind

Share = Literal["each", "union", "off"]

_CHOICES: dict[str, tuple[object, ...]] = {
    **dict.fromkeys(("exif_transpose", "with_kept", "compiled", "profile"), (True, False)),
    "query": ("last", "text"),
    "share": ("each", "union", "off"),
    "attention": ("auto", "flash", "efficient", "cudnn", "math"),
}
_TYPES: dict[str, tuple[type, ...]] = {"method": (str,), "keep": (float, int), "prior": (Path,)}  # the others are whole
_CALLED: dict[tuple[type, ...], str] = {
    (str,): "a name",
    (float, int): "a number",
    (Path,): "a path",
    (int,): "a whole number",
}

_SPEED = frozenset({"attention", "batch_size", "batch_tokens", "compiled", "profile", "share", "workers"})


@dataclass(frozen=True)
class Settings:
    """How to ground.

    Attributes:
        method: a name from ``deeplayer_cli.pruning.known_methods()``.
        keep: share of the visual tokens that stay, over all tiles and the thumbnail together.
        keep_tokens: an absolute number instead.
        layer: 1-based decoder layer to drop after; None for the method's own.
        query: prompt rows whose attention scores, for methods that read attention.
        prior: file of attention by place, for methods that are calibrated; see `deeplayer_cli.runtime.calibrate`.
        max_tiles: tiles an image may be cut into, the thumbnail not counted; None for the checkpoint's own.
        max_pixels: the largest image that is decoded; None for `deeplayer_cli.images.decode.MAX_PIXELS`.
        exif_transpose: turn images as their EXIF orientation says; boxes are then in the turned frame.
        max_new_tokens: the longest answer.
        seed: for methods that draw at random.
        with_kept: put the indices of the kept visual tokens into each row.
        share: what expressions about one image share: the image's way through layers 1..K (``"each"``), nothing
            (``"off"``, which changes no answer), or from there on also the ``"union"`` of their kept visual tokens.
        batch_size: the most prompts, and images, in one forward pass.
        batch_tokens: the most prompt tokens in one forward pass; None for what free memory allows.
        compiled: run the selection path through ``torch.compile``; None for yes on CUDA.
        attention: the attention kernel to prefer, see `deeplayer_cli.device.attention_kernels`.
        workers: threads that read and tile images; None for one a core, at most 8.
        profile: wait for the device at every change of phase, so that a GPU's phases can be told apart.

    Raises:
        DeeplayerError: a value has the wrong type, or no model could run with it.
    """

    method: str = "deep-layer"
    keep: float = 0.1
    keep_tokens: int | None = None
    layer: int | None = None
    query: QueryRowKind = "last"
    prior: Path | None = None
    max_tiles: int | None = None
    max_pixels: int | None = None
    exif_transpose: bool = False
    max_new_tokens: int = 100
    seed: int = 0
    with_kept: bool = False
    share: Share = "each"
    batch_size: int = 32
    batch_tokens: int | None = None
    compiled: bool | None = None
    attention: str = "auto"
    workers: int | None = None
    profile: bool = False

    def __post_init__(self) -> None:
        for item in fields(self):
            object.__setattr__(self, item.name, _checked(item, getattr(self, item.name)))
        for name in ("batch_size", "batch_tokens", "max_new_tokens", "max_pixels", "max_tiles", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DeeplayerError(f"--{name.replace('_', '-')} must be at least 1; it was {value}")
        pruning.require_known(self.method)
        pruning.Budget(self.keep, self.keep_tokens)  # an impossible one is said before a model is loaded
        needs_prior = pruning.known_methods()[self.method].is_calibrated
        if needs_prior != (self.prior is not None):
            said = "needs --prior FILE, which `deeplayer calibrate` makes" if needs_prior else "takes no --prior"
            raise DeeplayerError(f"method {self.method} {said}")

    def deciding(self) -> dict[str, object]:
        """Those that an answer depends on; the others change only how long it takes."""
        settings = {name: value for name, value in asdict(self).items() if name not in _SPEED}
        return settings | {"union": self.share == "union"}

    def pruning_options(self, grounding_layer: int | None, prior: pruning.Prior | None) -> pruning.Options:
        """What these settings say about the method.

        Args:
            grounding_layer: the model's own.
            prior: what the file `prior` holds, for methods that are calibrated.
        """
        budget = pruning.Budget(self.keep, self.keep_tokens)
        return pruning.Options(budget, self.layer, grounding_layer, self.query, prior)

    def tiling(self, model: Tiling) -> Tiling:
        """How images are cut, where the model would cut them as ``model``."""
        return replace(model, max_tiles=self.max_tiles or model.max_tiles)


def _checked(item: Field[Any], value: Any) -> object:
    """Return a setting's value, numpy's scalars as Python's, and a path as a `Path`.

    Raises:
        DeeplayerError: the value has the wrong type.
    """
    value = value.tolist() if hasattr(value, "tolist") else value
    if value is None and item.default is None:
        return None
    flag = f"--{item.name.replace('_', '-')}"
    if choices := _CHOICES.get(item.name):
        if not any(value is choice or (isinstance(choice, str) and value == choice) for choice in choices):
            raise DeeplayerError(f"{flag} must be {' or '.join(map(str, choices))}, not {value!r}")
        return value
    kinds = _TYPES.get(item.name, (int,))
    if kinds == (Path,) and isinstance(value, (str, os.PathLike)):
        return Path(value)
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise DeeplayerError(f"{flag} must be {_CALLED[kinds]}, not {value!r}")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise DeeplayerError(f"{flag} must be less than 2^63; it has {value.bit_length()} bits")
    return value
