"""Reads ``--methods`` and ``--keep`` of `compare`, which are lists."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from deeplayer_cli.commands import options
from deeplayer_cli.errors import DeeplayerError

if TYPE_CHECKING:
    from pathlib import Path

    from deeplayer_cli.runtime.settings import Settings

_NUMBERS = {"layer": "layer", "max-tiles": "max_tiles"}
"""The keys that may follow a method's name and an ``@`` with a number, and the field of `Settings` that each sets."""

_MOST_KEEPS = 1000  # of one range


def split_methods(methods: str) -> list[str]:
    """Split ``--methods``; an item with ``@layer=1-7`` becomes one item for each layer."""
    found: list[str] = []
    for item in map(str.strip, methods.split(",")):
        layers = re.search(r"@layer=(\d+-\d+)", item, re.ASCII)
        if layers is None:
            found.append(item)
            continue
        before, after = item[: layers.start(1)], item[layers.end(1) :]
        found += [f"{before}{layer}{after}" for layer in options.layers_in(f"--methods {before}", layers[1])]
    return found


def settings_of(text: str, base: Settings, layer: int | None, prior: Path | None) -> Settings:
    """Read one item of ``--methods``: a name, and a setting after each ``@``; calibrated methods get the prior."""
    from deeplayer_cli.pruning import canonical_name, find_method

    name, *changes = canonical_name(text).split("@")
    entry, _ = find_method(name)
    found: dict[str, Any] = {} if name == base.method else {"layer": layer, "keep": entry.keep}
    if entry.is_calibrated:
        found["prior"] = prior
    keys = [change.partition("=")[0] for change in changes]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise DeeplayerError(f"--methods {text}: {twice[0]} is given twice: give it once")
    for change in changes:
        key, _, value = change.partition("=")
        if key in entry.parameters:
            name += f"@{change}"
        elif key == "positions":
            found[key] = value
        elif key == "fallback":
            found |= _fallback(text, value)
        elif key in _NUMBERS and re.fullmatch(r"\d{1,6}", value, re.ASCII):
            found[_NUMBERS[key]] = int(value)
        else:
            known = ["layer=K", "max-tiles=N", "positions=keep|renumber|published", "fallback=T"]
            known += entry.parameters
            raise DeeplayerError(f"--methods {text}: after an @ comes {' or '.join(known)}, not {change!r}")
    return replace(base, method=name, **found)


def _fallback(text: str, value: str) -> dict[str, float]:
    try:
        return {"fallback": float(value)}
    except ValueError:
        raise DeeplayerError(f"--methods {text}: fallback must be a score, not {value!r}") from None


def read_keeps(text: str | None) -> tuple[list[float], list[dict[str, Any]]]:
    """Read ``--keep``: the shares of tokens; and fields of `Settings` for each ``auto:P`` and ``auto:P:LEAST:MOST``."""
    parts = [] if text is None else text.split(",")
    adaptive = [options.keep_settings(part) for part in parts if part.startswith("auto:")]
    shares = [part for part in parts if not part.startswith("auto:")]
    return _shares(",".join(shares)) if shares else [], adaptive


def _shares(text: str) -> list[float]:
    """Read ``--keep``: shares, and ranges of shares as START:STOP:STEP, both ends included."""
    found: list[float] = []
    try:
        for part in text.split(","):
            numbers = [float(number) for number in part.split(":")]
            if len(numbers) == 1:
                found += numbers
                continue
            start, stop, step = numbers
            steps = (stop - start) / step if step > 0 else -1.0
            if not 0 <= steps <= _MOST_KEEPS:
                raise ValueError(part)
            found += [round(start + number * step, 10) for number in range(math.floor(steps + 1e-9) + 1)]
    except ValueError as error:
        raise DeeplayerError(
            f"--keep must be shares separated by commas, such as 0.1,0.5, or START:STOP:STEP, such as 0.1:0.5:0.1, not "
            f"{text!r}"
        ) from error
    return found
