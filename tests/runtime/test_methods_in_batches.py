"""Every method, and a careless one of another package, in batches of mixed lengths and tiles against one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from deeplayer_cli.pruning import Entry, Prior, Scorer, Selection, Selector, known_methods, registry, topk
from deeplayer_cli.runtime.grounder import Grounder
from deeplayer_cli.runtime.prior_file import save_prior
from tests.runtime.test_grounder import SETTINGS, checkpoint, requests  # noqa: F401 - fixtures

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.pruning import ScorerInputs

LAYER = 3


class CarelessScorer(Scorer):
    """Takes means over all that it gets, as if every prompt came alone."""

    needs = frozenset(
        {"queries", "keys", "values", "features", "text_features", "text_embeddings", "image_embeddings", "rotation"}
    )

    def __call__(self, inputs: ScorerInputs) -> Tensor:
        text = inputs.text_features.mean(1) + inputs.text_embeddings.mean(1) + inputs.image_embeddings.mean(1)
        cos, sin = inputs.rotation
        other = (
            inputs.keys.mean((1, 2)) + inputs.values.mean((1, 2)) + inputs.queries.mean((1, 2)) + (cos + sin).mean(1)
        )
        other = other + inputs.visible.double().mean((1, 2))[:, None]
        other = other * (1 + inputs.prompt_tokens.shape[1] % 7)
        features = inputs.features
        return (features @ text[..., None] + features[..., : other.shape[1]] @ other[..., None])[..., 0]


class CarelessSelector(Selector):
    """Shifts the scores by the mean over the text, and merges with a mean over it."""

    needs = frozenset({"features", "text_features", "weights"})
    merges = True
    adaptive = True

    def __call__(self, scores: Tensor, inputs: ScorerInputs, n_keep: int) -> Selection:
        indices = topk(scores + inputs.features.mean(-1) * inputs.text_features.mean((1, 2))[:, None], n_keep)
        merged = inputs.features.take_along_dim(indices[..., None], 1) + inputs.text_features.mean(1, keepdim=True)
        counts = (n_keep - inputs.text_features.shape[1] % 2 * torch.ones(len(scores))).long().clamp(min=1)
        return Selection(indices, counts, merged, inputs.weights.gather(1, indices))


CARELESS = {
    "careless-scorer": Entry("", "", lambda _: CarelessScorer(), layer=LAYER),
    "careless": Entry("", "", lambda _: CarelessScorer(), CarelessSelector(), layer=LAYER),
}


@pytest.fixture
def prior(checkpoint, tmp_path):  # noqa: F811
    save_prior(Prior(torch.linspace(1, 2, 4), torch.ones(4), layer=2), tmp_path / "prior", checkpoint, 1)
    return tmp_path / "prior"


@pytest.mark.parametrize("method", [*known_methods(), *CARELESS])
def test_a_row_does_not_depend_on_its_batch(checkpoint, requests, prior, method, monkeypatch):  # noqa: F811
    known = {**known_methods(), **CARELESS}
    monkeypatch.setattr(registry, "known_methods", lambda: known)
    settings = replace(SETTINGS, method=method, prior=prior if known[method].is_calibrated else None)
    together, alone = (
        list(Grounder(checkpoint, replace(settings, batch_size=size)).ground(requests)) for size in (8, 1)
    )
    for one, other in zip(together, alone, strict=True):
        assert (one.kept, one.answer, one.box) == (other.kept, other.answer, other.box)
    assert len({tuple(row.kept) for row in together}) > 1


def test_rows_and_record_say_that_positions_were_renumbered(checkpoint, requests):  # noqa: F811
    kept, renumbered, whole = (
        replace(SETTINGS, method="pyramiddrop", **changes)
        for changes in ({}, {"positions": "published"}, {"positions": "renumber", "keep": 1.0})
    )
    rows = {one: list(Grounder(checkpoint, one).ground(requests[:3])) for one in (kept, renumbered, whole)}
    assert [row.positions for row in rows[renumbered]] == ["renumber"] * 3
    assert [row.positions for row in rows[kept] + rows[whole]] == [None] * 6
    assert [one.deciding()["positions"] for one in rows] == ["keep", "published", "renumber"]
    assert b'"positions"' not in rows[kept][0].to_json() and b'"positions":"renumber"' in rows[renumbered][0].to_json()
