"""The settings of a run, without any I/O."""

from __future__ import annotations

import os
from dataclasses import Field, asdict, dataclass, fields, replace
from pathlib import Path
from threading import TIMEOUT_MAX
from typing import TYPE_CHECKING, Any, Literal, get_args

from deeplayer_cli import pruning
from deeplayer_cli.device.attention_kernels import KERNELS
from deeplayer_cli.errors import DeeplayerError, not_one_of
from deeplayer_cli.images.loader import IMAGE_TIMEOUT
from deeplayer_cli.pruning.entry import PositionsOption

if TYPE_CHECKING:
    from deeplayer_cli.models.internvl.tiling import Tiling
    from deeplayer_cli.pruning import QueryRowKind

Share = Literal["each", "union", "off"]

_CHOICES: dict[str, tuple[object, ...]] = {
    **dict.fromkeys(("exif_transpose", "with_kept", "compiled", "profile", "strict"), (True, False)),
    "query": ("last", "text"),
    "positions": get_args(PositionsOption),
    "share": get_args(Share),
    "attention": KERNELS,
}
_TYPES: dict[str, tuple[type, ...]] = {  # the others are whole numbers
    "method": (str,),
    **dict.fromkeys(("keep", "keep_mass", "keep_least", "keep_most", "fallback"), (float, int)),
    "image_timeout": (float, int),
    "prior": (Path,),
}
_CALLED: dict[tuple[type, ...], str] = {
    (str,): "a name",
    (float, int): "a number",
    (Path,): "a path",
    (int,): "a whole number",
}

_MOST = {"max_tiles": 1024, "workers": 1024}  # a larger number is a slip, and would take all memory or all threads

_CHANGES_NO_ANSWER = frozenset(
    {"attention", "batch_size", "batch_tokens", "compiled", "image_timeout", "profile", "share", "strict", "workers"}
)


@dataclass(frozen=True)
class Settings:
    """The settings of a run: how to ground.

    Attributes:
        method: a name from ``deeplayer_cli.pruning.known_methods()``; ``NAME@PARAMETER=VALUE`` sets a parameter of it.
        keep: share of the visual tokens to keep, over all tiles and the thumbnail; by default the method's own.
        keep_tokens: number of visual tokens to keep, instead of ``keep``.
        keep_mass: keep the fewest visual tokens that hold this share of the visual attention, instead of ``keep``.
        keep_least: with ``keep_mass``, the smallest share of the visual tokens to keep; None for one token.
        keep_most: with ``keep_mass``, the largest; None for all.
        fallback: ask a row again without pruning if its score is below this, or if it has no box; None for never.
        layer: decoder layer, counted from 1, after which tokens are dropped; None for the method's own.
        query: query rows whose attention scores the visual tokens, for methods that read attention.
        positions: what happens to position ids after a drop: tokens ``keep`` theirs, or later layers ``renumber`` what
            is left without gaps; ``published``: what the method's authors do.
        prior: file of the prior of a calibrated method; see `deeplayer_cli.runtime.calibrate`.
        max_tiles: the most tiles of an image, without the thumbnail; None for the checkpoint's own number.
        max_pixels: the largest image to decode; None for `deeplayer_cli.images.decode.MAX_PIXELS`.
        exif_transpose: turn images by their EXIF orientation; boxes are then in the turned frame.
        max_new_tokens: the longest answer.
        seed: for methods that choose at random.
        with_kept: put into each row which visual tokens were kept, and where they lie in the image.
        share: what the expressions about one image share: its prefix, which is its state after layers 1..K
            (``"each"``); nothing (``"off"``, which changes no answer); or its prefix and, in the later layers, the
            ``"union"`` of their kept visual tokens, which changes answers.
        batch_size: the most prompts, and images, in one forward pass.
        batch_tokens: the most prompt tokens in one forward pass; None for as many as free memory allows.
        compiled: run the selection, and the layers over suffixes and answers, through ``torch.compile``; None for yes
            on CUDA, no elsewhere.
        attention: the attention kernel to prefer, see `deeplayer_cli.device.attention_kernels`.
        workers: threads that read and tile images; None for one per core, at most 8.
        image_timeout: seconds that an image may take to decode; one that takes longer becomes an error row.
        profile: wait for the device after every phase, so that the phases on a GPU are timed correctly.
        strict: refuse expressions with words that the model does not know, instead of a warning.

    Raises:
        DeeplayerError: a value has the wrong type, or is invalid for every model.
    """

    method: str = "deep-layer"
    keep: float = None  # type: ignore[assignment]  # the method's own share
    keep_tokens: int | None = None
    keep_mass: float | None = None
    keep_least: float | None = None
    keep_most: float | None = None
    fallback: float | None = None
    layer: int | None = None
    query: QueryRowKind = "last"
    positions: PositionsOption = "keep"
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
    image_timeout: float = IMAGE_TIMEOUT
    profile: bool = False
    strict: bool = False

    def __post_init__(self) -> None:
        for item in fields(self):
            object.__setattr__(self, item.name, _checked(item, getattr(self, item.name)))
        for name in ("batch_size", "batch_tokens", "max_new_tokens", "max_pixels", "max_tiles", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DeeplayerError(f"--{name.replace('_', '-')} must be at least 1; it was {value}")
        for name, most in _MOST.items():
            if (getattr(self, name) or 0) > most:
                raise DeeplayerError(f"--{name.replace('_', '-')} must be at most {most}; it was {getattr(self, name)}")
        if not 0 < self.image_timeout <= TIMEOUT_MAX:
            raise DeeplayerError(
                f"--image-timeout must be above 0 and at most {TIMEOUT_MAX:.0f} seconds; it was {self.image_timeout:g}"
            )
        object.__setattr__(self, "method", pruning.canonical_name(self.method))
        entry, _ = pruning.find_method(self.method)
        if self.keep is None:
            object.__setattr__(self, "keep", entry.keep)
        self.pruning_options(None, None)  # refuses an impossible budget before a model is loaded
        if self.fallback is not None and not 0 < self.fallback <= 1:
            raise DeeplayerError(f"--fallback must be a score above 0 and at most 1; it was {self.fallback}")
        needs_prior = entry.is_calibrated
        if needs_prior != (self.prior is not None):
            rule = "needs --prior FILE, which `deeplayer calibrate` makes" if needs_prior else "takes no --prior"
            raise DeeplayerError(f"method {self.method} {rule}")

    def require_positions(self, n_positions: int) -> None:
        """Check that a model of ``n_positions`` positions can hold a prompt besides the longest answer.

        Raises:
            DeeplayerError: the longest answer alone needs all positions.
        """
        if self.max_new_tokens >= n_positions:
            raise DeeplayerError(
                f"--max-new-tokens {self.max_new_tokens} leaves no position for a prompt: this model has {n_positions} "
                "positions for both"
            )

    def deciding(self) -> dict[str, object]:
        """Return the settings that an answer depends on; the others change the speed, or what is refused."""
        settings = {name: value for name, value in asdict(self).items() if name not in _CHANGES_NO_ANSWER}
        for bound in ("keep_least", "keep_most"):  # records from before there were bounds still hold
            if settings[bound] is None:
                del settings[bound]
        return settings | {"union": self.share == "union"}

    def pruning_options(self, grounding_layer: int | None, prior: pruning.Prior | None) -> pruning.Options:
        """Return the options of the pruning method.

        Args:
            grounding_layer: the layer that the checkpoint names as its grounding layer, if it names one.
            prior: the content of the file ``prior``, for calibrated methods.
        """
        adaptive = {"mass": self.keep_mass, "least": self.keep_least, "most": self.keep_most}
        given = {name: value for name, value in adaptive.items() if value is not None and self.keep_tokens is None}
        budget = pruning.Budget(self.keep, self.keep_tokens, **given)
        return pruning.Options(budget, self.layer, grounding_layer, self.query, prior, self.positions)

    def tiling(self, model: Tiling) -> Tiling:
        """Return how images are cut into tiles; ``model`` is the tiling of the checkpoint."""
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
            raise DeeplayerError(not_one_of(flag, value, choices))
        return value
    kinds = _TYPES.get(item.name, (int,))
    if kinds == (Path,) and isinstance(value, (str, os.PathLike)):
        return Path(value)
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise DeeplayerError(f"{flag} must be {_CALLED[kinds]}, not {value!r}")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise DeeplayerError(f"{flag} must be less than 2^63; it has {value.bit_length()} bits")
    return value
