"""Methods at equal keep, FLOPs and time: which lines are compared, and what is refused."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.evaluation.compare import paired_difference
from deeplayer_cli.evaluation.outcomes import outcomes_json
from deeplayer_cli.report.cost_tables import FLOPS, TIME, cost_sections, largest_within, priced_splits
from deeplayer_cli.report.study_cells import points
from deeplayer_cli.report.study_plot import draw
from tests.report.study_files import IMAGES, run_of, write_study


def cells(section: str, method: str) -> list[str]:
    (row,) = (line for line in section.splitlines() if line.startswith(f"| {method} |"))
    return [cell.strip() for cell in row.strip("|").split("|")][1:]


def change(n_wrong: int, n_wrong_of_other: int) -> str:
    one, other = ([place >= n for place in range(20)] for n in (n_wrong, n_wrong_of_other))
    return points(asdict(paired_difference(one, other, IMAGES)))


@pytest.fixture
def sections(tmp_path):
    write_study(tmp_path)
    return {section.splitlines()[0].removeprefix("## "): section for section in cost_sections(tmp_path)}


def test_at_equal_keep_every_line_is_compared_with_the_unpruned_model(sections):
    section = sections["At equal keep: standard"]
    assert "20 rows about 10 images; unpruned 95.0%" in section
    assert cells(section, "divprune") == [change(8, 1), "-", change(8, 1), "-"]  # keeps 0.1, 0.15, 0.2, 0.3
    assert cells(section, "scout-focus") == ["-", change(2, 1), "-", change(2, 1)]
    assert "| none" not in section and "| freeze" not in section


def test_at_equal_cost_the_largest_keep_within_the_budget_counts(sections):
    section = sections["At equal FLOPs of the language model: standard"]  # budgets 20%, 30%, 40%, 50%, 60%, 80%
    assert cells(section, "divprune") == [f"{change(8, 1)} @0.2"] * 6
    assert cells(section, "scout-focus") == [f"{change(2, 1)} @0.15"] * 2 + [f"{change(2, 1)} @0.3"] * 4
    assert cells(section, "freeze") == ["-"] * 3 + [f"{change(5, 1)} @1"] * 3
    assert cells(section, "d2pruner (layer 6)") == ["-"] * 5 + [f"{change(5, 1)} @0.1"]
    by_time = sections["At equal measured time: standard"]  # the least of the rounds: divprune 0.15 and 0.24
    assert cells(by_time, "divprune")[:2] == [f"{change(8, 1)} @0.1", f"{change(8, 1)} @0.2"]


def test_others_are_compared_with_the_scout_at_its_cost(sections):
    section = sections["scout-focus and the others at its measured time"]
    assert "scout-focus at 0.15 costs 20.0%" in section  # 2 of 10 seconds
    assert cells(section, "divprune") == ["0.1", "15.0%", change(8, 2), change(9, 3)]
    assert "No keep is so cheap for: d2pruner (layer 2), d2pruner (layer 6), deep-layer-mis, " in section


def test_a_prior_is_compared_with_the_same_method_without_it(sections):
    section = sections["With and without a prior, or merging"]
    assert cells(section, "d2pruner (layer 2) - deep-layer-mis@layer=2") == ["0.1", change(5, 5), change(6, 6)]
    assert cells(section, "d2pruner (layer 6) - deep-layer-mis") == ["0.1", change(5, 5), change(6, 6)]


def test_costs_are_shares_of_the_unpruned_models(sections):
    assert cells(sections["What each line costs"], "none") == ["1", "50.0%", "100.0%", "100.0%", "100.0%"]
    assert cells(sections["What each line costs"], "freeze") == ["1", "50.0%", "45.0%", "45.0%", "50.0%"]


def test_nothing_fits_a_budget_of_nothing(tmp_path):
    write_study(tmp_path)
    lines = priced_splits(tmp_path)["standard"]
    assert largest_within(lines, FLOPS, 0.05) == {} and largest_within(lines, TIME, 0.05) == {}


def test_incomplete_studies_are_refused(tmp_path):
    write_study(tmp_path)
    (tmp_path / "costs.json").unlink()
    with pytest.raises(DeeplayerError, match=r"costs\.json cannot be read"):
        cost_sections(tmp_path)
    write_study(tmp_path)
    (tmp_path / "outcomes-standard.json").write_bytes(
        outcomes_json([run_of("none", 1.0, None, 1), run_of("dart", 0.1, 2, 3)])
    )
    with pytest.raises(DeeplayerError, match=r"outcomes-standard\.json: costs\.json has no cost of dart"):
        cost_sections(tmp_path)
    for content in ("{", "[]", '{"images": [0], "lines": [{"label": "none", "right": "11"}]}'):
        (tmp_path / "outcomes-standard.json").write_text(content)
        with pytest.raises(DeeplayerError, match=r"is not what deeplayer_cli\.evaluation\.outcomes prints"):
            cost_sections(tmp_path)


def test_the_plot_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(DeeplayerError, match="has no outcomes-NAME"):
        draw(tmp_path, tmp_path / "study.png", ["divprune"])
    write_study(tmp_path)
    with pytest.raises(DeeplayerError, match="has no line dart; there are d2pruner, deep-layer-mis, "):
        draw(tmp_path, tmp_path / "study.png", ["dart"])
    draw(tmp_path, tmp_path / "study.png", ["divprune", "scout-focus", "freeze"])
    assert (tmp_path / "study.png").read_bytes().startswith(b"\x89PNG")
