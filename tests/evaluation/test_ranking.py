"""How well scores tell right rows from wrong ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deeplayer_cli.evaluation.ranking import ScoreQuality

ROWS = st.lists(st.tuples(st.sampled_from([0.0, 0.2, 0.5, 0.8, 0.95, 1.0]), st.booleans()), min_size=1, max_size=40)


@given(ROWS)
def test_auc_is_the_share_of_pairs_in_order(rows: list[tuple[float, bool]]) -> None:
    scores, right = zip(*rows, strict=True)
    quality = ScoreQuality.from_rows(scores, right)
    pairs = [(good > bad) + 0.5 * (good == bad) for good, yes in rows for bad, no in rows if yes and not no]
    if not pairs:
        assert quality is None
        return
    assert quality is not None and quality.auc == pytest.approx(sum(pairs) / len(pairs))
    for one in quality.thresholds:
        above = [yes for score, yes in rows if score >= one.least]
        assert one.share == pytest.approx(len(above) / len(rows))
        assert one.accuracy == (pytest.approx(sum(above) / len(above)) if above else None)


def test_it_is_said_in_a_sentence() -> None:
    quality = ScoreQuality.from_rows([0.9, 0.9, 0.4, 0.6], [True, True, False, False])
    assert str(quality) == (
        "score: AUC 1.000 between right and wrong boxes; right are 66.7% of the 75.0% with at least 0.5, 100.0% of the "
        "50.0% with at least 0.8."
    )
