"""``deeplayer models``."""

from __future__ import annotations

from dataclasses import asdict

import orjson
import typer

from deeplayer_cli.commands import options


def models(json: options.Json = False) -> None:
    """List the published models: layers, the layer that is pruned after by default, memory of the weights, licence.

    `--model` takes the names. `random:8b` is random weights in the shape of InternVL2.5's 8B, and so on. InternVL3 runs
    from checkpoints in transformers' layout (`-hf`); `--json` names each layout. The licence is the tag of the model's
    card on the hub, as far as it was looked up; the parts of a model have their own.
    """
    from deeplayer_cli.checkpoints.known_models import known_models
    from deeplayer_cli.pruning import find_method

    (drop,) = find_method("deep-layer")[0].all_drops
    known = [(model, drop.layer_in(model.layers, model.grounding_layer)) for model in known_models()]
    if json:
        rows = [{**asdict(model), "prunes_after": layer, "weights_gib": model.weights_gib()} for model, layer in known]
        typer.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
        return

    from deeplayer_cli.report.tables import plain_table, show_table

    table = plain_table()
    table.add_column("model", no_wrap=True)
    for heading in ("params\n(M)", "layers", "prunes\nafter", "GiB\nbf16", "GiB\nfp32"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("licence", min_width=len("Apache-2.0"))
    for model, layer in known:
        weights = (f"{model.weights_gib()[dtype]:.2f}" for dtype in ("bfloat16", "float32"))
        parameters = f"{model.parameters / 1e6:,.0f}"
        table.add_row(model.name, parameters, str(model.layers), str(layer), *weights, model.licence)
    show_table(table)
