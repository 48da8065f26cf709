"""Tables of a study: methods at equal keep, at equal FLOPs and at equal time, from row by row outcomes and costs."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.evaluation.compare import compare, line_called, paired_difference
from deeplayer_cli.evaluation.line_costs import key_of, read_costs
from deeplayer_cli.evaluation.outcomes import read_outcomes
from deeplayer_cli.report.study_cells import points, rate
from deeplayer_cli.report.text_tables import text_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from deeplayer_cli.evaluation.compare import MethodRun
    from deeplayer_cli.evaluation.line_costs import LineCost, LineKey

BASELINE = "none"
BUDGETS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
"""Costs at which methods are compared, as shares of the unpruned model's."""

SCOUT, SCOUT_KEEP = "scout-focus", 0.15
LAYER_OF_PRIOR = {"d2pruner"}
"""Methods that drop after the layer of their prior, so that their label does not tell it."""

WITHOUT = {
    "d2pruner": "deep-layer-mis",
    "visionzip": "visionzip-nomerge",
    "sparsevlm": "sparsevlm-nomerge",
}
"""Methods with a prior or with merging, each with the same method without it."""


@dataclass(frozen=True)
class PricedRun:
    """A line with its cost.

    Attributes:
        run: the rows that it got right.
        cost: what it costs.
        time: its time, as a share of the unpruned model's.
    """

    run: MethodRun
    cost: LineCost
    time: float


@dataclass(frozen=True)
class Measure:
    """A cost at which methods are compared.

    Attributes:
        name: for headings.
        of: the cost of a line, as a share of the unpruned model's.
    """

    name: str
    of: Callable[[PricedRun], float]


FLOPS = Measure("FLOPs of the language model", lambda line: line.cost.lm_flops)
TIME = Measure("measured time", lambda line: line.time)


def priced_splits(folder: Path) -> dict[str, list[PricedRun]]:
    """The lines of every ``outcomes-NAME.json`` in a folder with the costs of ``costs.json``, by name.

    Raises:
        DeeplayerError: a file cannot be read, or a line has no cost.
    """
    paths = sorted(folder.glob("outcomes-*.json"), reverse=True)  # standard before hard
    costs = read_costs(folder / "costs.json") if paths else {}
    return {path.stem.removeprefix("outcomes-"): _priced(path, costs) for path in paths}


def cost_sections(folder: Path) -> list[str]:
    """The sections of ``outcomes-NAME.json`` and ``costs.json`` in a folder; none if there are no outcomes."""
    splits = priced_splits(folder)
    if not splits:
        return []
    found = []
    for name, lines in splits.items():
        found.append((f"At equal keep: {name}", f"{_about(lines)} Differences to it.\n\n{_at_equal_keep(lines)}"))
        found += [(f"At equal {one.name}: {name}", _at_equal_cost(lines, one)) for one in (FLOPS, TIME)]
    found += [(f"{SCOUT} and the others at its {one.name}", _against_scout(splits, one)) for one in (FLOPS, TIME)]
    found.append(("With and without a prior, or merging", _ablations(splits)))
    found.append(("What each line costs", _costs(next(iter(splits.values())))))
    return [f"## {title}\n\n{text}\n" for title, text in found]


def largest_within(lines: Sequence[PricedRun], measure: Measure, most: float) -> dict[str, PricedRun]:
    """For each method, its line with the largest keep that costs no more than ``most``, if any costs so little."""
    found: dict[str, PricedRun] = {}
    for line in sorted(lines, key=lambda line: line.run.keep or 0.0):
        if measure.of(line) <= most * (1 + 1e-9):
            found[method_name(line)] = line
    return found


def method_name(line: PricedRun) -> str:
    """The label, with the layer for methods that a prior gives it."""
    run = line.run
    return f"{run.label} (layer {run.layer})" if run.label in LAYER_OF_PRIOR else run.label


def _priced(path: Path, costs: Mapping[LineKey, LineCost]) -> list[PricedRun]:
    """The lines of a file of outcomes with their costs; the unpruned model comes first.

    Raises:
        DeeplayerError: the file cannot be read, or a line has no cost.
    """
    runs = read_outcomes(path)
    missing = [run.label for run in runs if key_of(run) not in costs]
    if missing:
        raise DeeplayerError(f"{path}: costs.json has no cost of {', '.join(dict.fromkeys(missing))}")
    runs.insert(0, runs.pop(line_called(BASELINE, [run.label for run in runs])))
    unpruned = costs[key_of(runs[0])].least
    return [PricedRun(run, costs[key_of(run)], costs[key_of(run)].least / unpruned) for run in runs]


def _about(lines: Sequence[PricedRun]) -> str:
    run = lines[0].run
    (unpruned,) = compare([run], run)
    return f"{len(run.right)} rows about {len(set(run.images))} images; unpruned {rate(unpruned.to_dict())}."


def _change(line: PricedRun, other: PricedRun) -> str:
    if line.run is other.run:
        return "-"
    return points(asdict(paired_difference(line.run.right, other.run.right, line.run.images)))


def _at_equal_keep(lines: Sequence[PricedRun]) -> str:
    by_method: defaultdict[str, dict[float, PricedRun]] = defaultdict(dict)
    for line in lines[1:]:
        by_method[method_name(line)][line.run.keep or 1.0] = line
    pruned = {name: found for name, found in by_method.items() if len(found) > 1}
    keeps = sorted({keep for found in pruned.values() for keep in found})
    rows = [
        [name, *(_change(found[keep], lines[0]) if keep in found else "-" for keep in keeps)]
        for name, found in sorted(pruned.items())
    ]
    return text_table(["method", *(f"{keep:g}" for keep in keeps)], rows, "markdown")


def _at_equal_cost(lines: Sequence[PricedRun], measure: Measure) -> str:
    """Differences to the unpruned model at each budget; the keep stands behind."""
    within = [largest_within(lines[1:], measure, most) for most in BUDGETS]
    rows = []
    for name in sorted({name for found in within for name in found}):
        chosen = [found.get(name) for found in within]
        rows.append([name, *("-" if one is None else f"{_change(one, lines[0])} @{_keep(one)}" for one in chosen)])
    return text_table(["method", *(f"{most:.0%}" for most in BUDGETS)], rows, "markdown")


def _against_scout(splits: Mapping[str, Sequence[PricedRun]], measure: Measure) -> str:
    """Each method at the largest keep that costs no more than the scout; differences to the scout."""
    first = next(iter(splits.values()))
    scouts = {name: _line(lines, SCOUT, SCOUT_KEEP) for name, lines in splits.items()}
    most = measure.of(_line(first, SCOUT, SCOUT_KEEP))
    within = {name: largest_within(lines[1:], measure, most) for name, lines in splits.items()}
    cheap = next(iter(within.values()))
    rows = []
    for method in sorted(cheap.keys() - {SCOUT}):
        changes = (_change(found[method], scouts[name]) for name, found in within.items())
        rows.append([method, _keep(cheap[method]), f"{measure.of(cheap[method]):.1%}", *changes])
    too_costly = sorted({method_name(line) for line in first[1:]} - cheap.keys())
    return (
        f"{SCOUT} at {SCOUT_KEEP:g} costs {most:.1%}; differences to it.\n\n"
        f"{text_table(['method', 'keep', 'cost', *splits], rows, 'markdown')}\n\n"
        f"No keep is so cheap for: {', '.join(too_costly)}."
    )


def _ablations(splits: Mapping[str, Sequence[PricedRun]]) -> str:
    """Each line of `WITHOUT` against the line of the same layer and keep without it."""

    def pairs(lines: Sequence[PricedRun]) -> dict[tuple[str, str], str]:
        plain = {(one.run.label.split("@")[0], one.run.layer, one.run.keep): one for one in lines}
        found = {}
        for line in sorted(lines, key=lambda line: (method_name(line), line.run.keep or 1.0)):
            other = plain.get((WITHOUT.get(line.run.label, ""), line.run.layer, line.run.keep))
            if other is not None:
                found[f"{method_name(line)} - {other.run.label}", _keep(line)] = _change(line, other)
        return found

    every = [pairs(lines) for lines in splits.values()]
    rows = [[*key, *(found.get(key, "-") for found in every)] for key in every[0]]
    return text_table(["difference", "keep", *splits], rows, "markdown")


def _costs(lines: Sequence[PricedRun]) -> str:
    rows = []
    for line in [lines[0], *sorted(lines[1:], key=lambda line: (method_name(line), line.run.keep or 1.0))]:
        cost = line.cost
        shares = (cost.mean_keep, cost.lm_flops, cost.flops, line.time)
        rows.append([method_name(line), _keep(line), *(f"{share:.1%}" for share in shares)])
    return text_table(["method", "keep", "mean keep", "LM FLOPs", "with vision", "time"], rows, "markdown")


def _line(lines: Sequence[PricedRun], label: str, keep: float) -> PricedRun:
    found = [line for line in lines if (line.run.label, line.run.keep) == (label, keep)]
    if not found:
        raise DeeplayerError(f"the study has no line {label} that keeps {keep:g}")
    return found[0]


def _keep(line: PricedRun) -> str:
    return "1" if line.run.kept == 1.0 else f"{line.run.keep:g}"
