"""Prints a sweep as a table, and the choice of a layer in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deeplayer_cli.report.tables import plain_table, show_table, two_lines
from deeplayer_cli.schema.values import counted

if TYPE_CHECKING:
    from rich.table import Table

    from deeplayer_cli.evaluation.sweep import Accuracy, Choice, RowSplit, SweptLayer
    from deeplayer_cli.evaluation.target_attention import TargetAttention, TargetMeasures

_EXPLANATION = (
    "Acc@0.5 after pruning there, on the selection rows, with 95% intervals clustered by image; best: share of "
    "bootstrap samples of the selection images in which the layer is the best. last, text, drafted: attention of the "
    "last prompt token, the expression's tokens and the drafted answer's last token: its share on the target, the "
    "share of the kept tokens that are the target's, and below the mean rank of the target's tokens (0: highest, .50: "
    "chance). mean keep: share of visual tokens that a layer sees, as a mean over layers; a scout counts in GFLOPs "
    "only."
)


def show(choice: Choice, measured: TargetMeasures, split: RowSplit) -> None:
    """Print a sweep to stdout."""
    from rich.console import Console

    console = Console()
    show_table(_table(choice, measured))
    console.print(
        f"{_EXPLANATION} Attention is that of {counted(measured.n_rows, 'selection row')} about "
        f"{counted(measured.n_images, 'image')}; their targets are {measured.area:.1%} of the tokens.\n"
    )
    for sentence in sentences(choice, split):
        console.print(sentence, highlight=False)


def sentences(choice: Choice, split: RowSplit) -> list[str]:
    """The choice, how sure it is, and what it is worth on rows that had no part in it."""
    best, held_out, unpruned, change = choice.layer, choice.held_out, choice.held_out_unpruned, choice.difference
    others = sorted((one for one in choice.layers if one is not best), key=lambda one: one.wins, reverse=True)
    rivals = ", ".join(f"layer {one.layer} in {one.wins:.0%}" for one in others[:2] if one.wins)
    told = [
        f"Layer {best.layer} (index {best.layer - 1}) is chosen: {_words(best.accuracy)} on "
        f"{counted(best.accuracy.n, 'selection row')}, unpruned {choice.unpruned.rate.value:.1%}. It is the best in "
        f"{best.wins:.0%} of the bootstrap samples{f' ({rivals})' if rivals else ''}.",
        f"On {counted(held_out.n, 'report row')} about {counted(held_out.n_images, 'other image')}: "
        f"{_words(held_out)}, unpruned {_words(unpruned)}; difference {100 * change.value:+.1f} "
        f"({100 * change.low:+.1f} to {100 * change.high:+.1f}), p = {change.p:.2g}.",
    ]
    if split.n_left_out:
        told.append(f"{counted(split.n_left_out, 'row')} in neither set: not used.")
    return told


def to_dict(choice: Choice, measured: TargetMeasures, split: RowSplit) -> dict[str, object]:
    """A sweep as JSON values."""
    attention: dict[str, object] = {"n": measured.n_rows, "n_images": measured.n_images, "area": measured.area}
    for kind, by_layer in measured.by_kind.items():
        attention[kind] = [{"layer": layer, **one.to_dict()} for layer, one in enumerate(by_layer, start=1)]
    layers = [_figures(one) for one in choice.layers]
    counts = {"n_select": len(split.select), "n_report": len(split.report), "n_left_out": split.n_left_out}
    return {**choice.to_dict(), **counts, "layers": layers, "attention": attention}


def rows_of(choice: Choice, measured: TargetMeasures) -> list[dict[str, object]]:
    """A sweep as rows of equal fields, one for each layer."""
    rows = []
    for swept in choice.layers:
        row, rate = _figures(swept), swept.accuracy.rate
        del row["acc@0.5_ci95"]
        row |= {"acc@0.5_low": rate.low, "acc@0.5_high": rate.high}
        for kind, by_layer in measured.by_kind.items():
            for name, one in by_layer[swept.layer - 1].rates.items():
                row |= {f"{kind}_{name}": one.value, f"{kind}_{name}_low": one.low, f"{kind}_{name}_high": one.high}
        rows.append(row)
    return rows


def _figures(swept: SweptLayer) -> dict[str, object]:
    cost = swept.cost
    return {
        "layer": swept.layer,
        "index": swept.layer - 1,
        **swept.accuracy.to_dict(),
        "best_in": swept.wins,
        "mean_keep": cost and cost.mean_keep,
        "gflops": cost and cost.gflops,
    }


def _table(choice: Choice, measured: TargetMeasures) -> Table:
    table = plain_table()  # fits 80 columns
    for heading in ("layer\nindex", "mean keep\nGFLOPs", "Acc@0.5", "best", *measured.by_kind):
        table.add_column(heading, justify="right", no_wrap=True)
    for swept in choice.layers:
        mark = "*" if swept is choice.layer else " "
        cost, rate = swept.cost, swept.accuracy.rate
        table.add_row(
            two_lines(f"{mark}{swept.layer}", str(swept.layer - 1)),
            "-" if cost is None else two_lines(f"{cost.mean_keep:.1%}", f"{cost.gflops:.3g}"),
            two_lines(f"{rate.value:.1%}", f"{100 * rate.low:.0f}-{100 * rate.high:.0f}"),
            f"{swept.wins:.0%}",
            *(_attention(by_layer[swept.layer - 1]) for by_layer in measured.by_kind.values()),
        )
    return table


def _attention(one: TargetAttention) -> str:
    return two_lines(f"{one.mass.value:.0%}/{one.in_box.value:.0%}", f"{one.rank.value:.2f}".removeprefix("0"))


def _words(accuracy: Accuracy) -> str:
    rate = accuracy.rate
    return f"{rate.value:.1%} ({100 * rate.low:.1f} to {100 * rate.high:.1f})"
