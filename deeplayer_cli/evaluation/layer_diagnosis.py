"""The diagnosis of a layer's attention to the image, as figures and in a sentence."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from deeplayer_cli.evaluation.positional_bias import LEVEL

if TYPE_CHECKING:
    from deeplayer_cli.evaluation.attention_maps import Floats
    from deeplayer_cli.evaluation.positional_bias import PlaceCorrelation, PlaceDependence
    from deeplayer_cli.evaluation.prior_effect import PriorEffect

SLIGHT = 0.1
"""Correlations below this are called slight."""

PriorVerdict = Literal["helps", "hurts", "no difference"]

_TOWARDS = {
    "row": ("the top", "the bottom"),
    "column": ("the left", "the right"),
    "raster": ("the beginning of the prompt", "the end of the prompt"),
    "centre": ("the centre", "the edges"),
}
"""Where attention grows if its correlation with the place is negative, and if it is positive."""


@dataclass(frozen=True)
class LayerDiagnosis:
    """The diagnosis of a layer. All figures are means over images.

    Attributes:
        layer: counted from 1.
        places: how attention depends on the place.
        p: p-value of "attention does not depend on the place", adjusted for the number of layers.
        stability: mean cosine between the maps of two expressions about an image; None if no image has two.
        generic_stability: the same for generic questions.
        entropy: of the attention to the visual tokens, as a share of the entropy of uniform attention.
        visual_share: share of all attention that falls on visual tokens.
        first_share: share of all attention that falls on the first token of the prompt.
        n_sinks: number of visual tokens of an image that are sinks, see `diagnosis.SINK`.
        sink_share: share of the attention to visual tokens that falls on them.
        prior: what dividing by a prior does; None if it cannot be measured.
        prior_p: its p-value, adjusted for the number of layers.
        tile_map, whole_map: (side, side), mean attention by place within a tile, and within the view of the whole image
            (the thumbnail, or the only tile); 1 is the mean over the image.
    """

    layer: int
    places: PlaceDependence
    p: float
    stability: float | None
    generic_stability: float | None
    entropy: float
    visual_share: float
    first_share: float
    n_sinks: float
    sink_share: float
    prior: PriorEffect | None
    prior_p: float | None
    tile_map: Floats
    whole_map: Floats

    @property
    def is_biased(self) -> bool:
        """Whether attention depends on the place more than by chance."""
        return self.p < LEVEL

    @property
    def bias(self) -> PlaceCorrelation | None:
        """The largest correlation outside of its band, if the layer is biased; the place in the prompt comes last."""
        outside = [one for one in self.places.correlations if not one.low <= one.rho <= one.high]
        if not self.is_biased or not outside:
            return None
        return max(outside, key=lambda one: (one.signal != "raster", abs(one.rho)))

    @property
    def prior_verdict(self) -> PriorVerdict | None:
        """Whether dividing by a prior keeps more or fewer of the target's tokens; None if it cannot be measured."""
        if self.prior is None or self.prior_p is None:
            return None
        if self.prior_p >= LEVEL:
            return "no difference"
        return "helps" if self.prior.difference.value > 0 else "hurts"

    @property
    def sentence(self) -> str:
        """The answer in a sentence: is there a positional bias, and does dividing by a prior help or hurt?"""
        return f"Layer {self.layer} (index {self.layer - 1}): {self._bias_in_words()}; {self._prior_in_words()}."

    def to_dict(self) -> dict[str, object]:
        """The diagnosis as JSON values."""
        return {
            "layer": self.layer,
            "index": self.layer - 1,
            "visual_share": self.visual_share,
            "first_share": self.first_share,
            "entropy": self.entropy,
            "stability": self.stability,
            "generic_stability": self.generic_stability,
            "n_sinks": self.n_sinks,
            "sink_share": self.sink_share,
            "correlations": [one._asdict() for one in self.places.correlations],
            "agreement": self.places.agreement,
            "agreement_by_chance": self.places.agreement_high,
            "p": self.p,
            "biased": self.is_biased,
            "bias": None if self.bias is None else self.bias._asdict(),
            "prior": None if self.prior is None else {**asdict(self.prior), "p": self.prior_p},
            "prior_verdict": self.prior_verdict,
            "sentence": self.sentence,
        }

    def to_row(self) -> dict[str, object]:
        """The diagnosis as one row of a table: each number has a field of its own."""
        row = self.to_dict()
        for name in ("correlations", "bias", "prior"):
            del row[name]
        for one in self.places.correlations:
            row |= {f"{one.view}_{one.signal}_{name}": getattr(one, name) for name in ("rho", "low", "high")}
        prior = self.prior
        return row | {
            "prior_kept": prior and prior.kept,
            "prior_kept_divided": prior and prior.kept_divided,
            **{f"prior_{name}": prior and getattr(prior.difference, name) for name in ("value", "low", "high")},
            "prior_p": self.prior_p,
        }

    def _bias_in_words(self) -> str:
        if not self.is_biased:
            return f"no positional bias found (p = {self.p:.2g})"
        bias = self.bias
        if bias is None:
            return f"positional bias: the same places attract attention in all images (p = {self.p:.2g})"
        slight = "slight " if abs(bias.rho) < SLIGHT else ""
        towards = _TOWARDS[bias.signal][bias.rho > 0]
        where = "within tiles" if bias.view == "tile" else "over the image"
        return (
            f"{slight}positional bias: attention grows towards {towards} {where} (rho {bias.rho:+.2f}, by chance "
            f"{bias.low:+.2f} to {bias.high:+.2f})"
        )

    def _prior_in_words(self) -> str:
        if self.prior is None:
            return "what dividing by a prior does cannot be measured without gold boxes about two images"
        change = self.prior.difference
        verb = {"helps": "helps", "hurts": "hurts", "no difference": "makes no clear difference"}
        return (
            f"dividing by a prior {verb[self.prior_verdict or 'no difference']}: it keeps "
            f"{self.prior.kept_divided:.0%} of the target, attention alone {self.prior.kept:.0%} "
            f"({100 * change.value:+.1f}, {100 * change.low:+.1f} to {100 * change.high:+.1f} for this layer alone; "
            f"p {self.prior_p:.2g} over all layers)"
        )
