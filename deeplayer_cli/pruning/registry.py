"""Finds methods by name: files in ``pruning/methods``, and entry points of the group ``deeplayer.methods``."""

from __future__ import annotations

import hashlib
import logging
import sys
from contextlib import suppress
from dataclasses import replace
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from deeplayer_cli.errors import DeeplayerError, did_you_mean
from deeplayer_cli.pruning.declaration import fault_in
from deeplayer_cli.pruning.entry import Entry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence, Set
    from importlib.metadata import EntryPoint

    from deeplayer_cli.pruning.entry import Options
    from deeplayer_cli.pruning.method import Method, Stage
    from deeplayer_cli.pruning.parameter import Value

logger = logging.getLogger("deeplayer")
ENTRY_POINTS = "deeplayer.methods"
_PACKAGE = "deeplayer_cli.pruning.methods"
_OPTIONS = frozenset({"fallback", "keep", "keep-tokens", "layer", "max-tiles", "positions", "prior", "query", "seed"})
"""Options of a run that look like parameters of a method."""


@cache
def known_methods() -> Mapping[str, Entry]:
    """All methods by name: `none`, deeplayer's other methods, then those of installed packages that can be used."""
    own = dict(sorted(_own().items(), key=lambda one: (one[0] != "none", one[0])))
    foreign = {point.name: entry for point, entry in _foreign() if isinstance(entry, Entry)}
    return own | foreign


@cache
def broken_methods() -> Mapping[str, str]:
    """The methods of installed packages that cannot be used: the reason by name, one sentence each."""
    return {point.name: reason for point, reason in _foreign() if isinstance(reason, str)}


@cache
def _foreign() -> Sequence[tuple[EntryPoint, Entry | str]]:
    """The entry points of installed packages, each with its method, or with the reason why it cannot be used."""
    taken = set(_own())
    found: list[tuple[EntryPoint, Entry | str]] = []
    for point in entry_points(group=ENTRY_POINTS):
        found.append((point, _load(point, taken)))
        taken.add(point.name)
    return found


def method_code(text: str) -> str | None:
    """A digest of the code of an installed package's method, which its author may change; None for deeplayer's own.

    Args:
        text: the method's name, with or without parameters.
    """
    return _foreign_code().get(canonical_name(text).partition("@")[0])


@cache
def _foreign_code() -> Mapping[str, str]:
    return {point.name: _code_digest(point.module) for point, entry in _foreign() if isinstance(entry, Entry)}


def _code_digest(module: str) -> str:
    """A digest of a module, and of all modules of its package that are loaded with it."""
    package = module.partition(".")[0]
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(one for one in sys.modules if one == package or one.startswith(f"{package}.")):
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None:
            with suppress(OSError):  # it lies in an archive
                digest.update(name.encode() + b"\0" + Path(file).read_bytes())
    return digest.hexdigest()


def _load(point: EntryPoint, taken: Set[str]) -> Entry | str:
    cannot = f"method {point.name!r} from {point.value} cannot be used"
    if point.name in taken:
        return f"{cannot}: its name is taken"
    try:
        entry = point.load()
        fault = fault_in(entry) if isinstance(entry, Entry) else "it is not a deeplayer_cli.pruning.Entry"
    except (Exception, SystemExit) as error:  # a foreign package may raise anything, or exit
        return f"{cannot}: loading it raised {type(error).__name__}: {error}"
    return f"{cannot}: {fault}" if fault else entry


def _own() -> dict[str, Entry]:
    names = [module.name for module in iter_modules(import_module(_PACKAGE).__path__)]
    return {name.replace("_", "-"): import_module(f"{_PACKAGE}.{name}").ENTRY for name in names}


def canonical_name(text: str) -> str:
    """Return a method's name, with or without parameters, as the list of methods spells it; others unchanged."""
    name, at, parameters = text.strip().partition("@")
    spellings = {known.casefold(): known for known in known_methods()}
    found = name if name in known_methods() else spellings.get(name.casefold(), name)
    return f"{found}{at}{parameters}"


def find_method(text: str) -> tuple[Entry, Mapping[str, Value]]:
    """Find a method by its name, and read what follows the name: ``@PARAMETER=VALUE`` for each parameter to set.

    Returns:
        The method, and the parameters that are set.

    Raises:
        DeeplayerError: no method has this name, and the message lists all methods; or the method's package is broken;
            or the method has no such parameter, or the parameter no such value.
    """
    name, *settings = canonical_name(text).split("@")
    if name not in known_methods():
        unknown = f"unknown pruning method {name!r}; known methods: {', '.join(known_methods())}"
        raise DeeplayerError(broken_methods().get(name, f"{unknown}{did_you_mean(name, known_methods())}"))
    _warn_of_namesake(name)
    entry = known_methods()[name]
    found: dict[str, Value] = {}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key not in entry.parameters:
            raise DeeplayerError(f"method {name} has no parameter {key!r}; {_way_out(entry, key, value)}")
        if key in found:
            raise DeeplayerError(f"method {name}: {key} is given twice: give it once")
        try:
            found[key] = entry.parameters[key].read(value)
        except DeeplayerError as error:
            raise DeeplayerError(f"method {name}: {key} {error}") from None
    return entry, found


@cache
def _warn_of_namesake(name: str) -> None:
    """Warn once that an installed package has a method of this name too, which does not run."""
    if name in broken_methods():
        logger.warning("%s by the method that runs", broken_methods()[name])


def _way_out(entry: Entry, key: str, value: str) -> str:
    """What to give instead of a parameter that a method does not have."""
    if key in _OPTIONS:
        return f"give the option --{key} {value}".rstrip()
    return f"its parameters: {', '.join(entry.parameters)}" if entry.parameters else "it takes none"


def build(name: str, options: Options, n_layers: int) -> Method:
    """Build a method for a model of ``n_layers`` decoder layers.

    Args:
        name: its name, with ``@PARAMETER=VALUE`` for each parameter to set.
        options: the other options.
        n_layers: number of decoder layers of the model.

    Raises:
        DeeplayerError: there is no such method or parameter, or it cannot drop after the given layer.
    """
    entry, parameters = find_method(name)
    method = entry.build(name, replace(options, parameters=parameters), n_layers)
    for stage in method.stages:
        check_layer(stage, n_layers)
    return method


def check_layer(stage: Stage, n_layers: int) -> None:
    """Refuse a layer after which the stage cannot drop.

    The layer must exist and must not be the last one. A stage that reads queries, keys or values cannot drop before
    layer 1, unless it scores with the next layer or has a scout. A scout may end with any layer.

    Raises:
        DeeplayerError: the layer is out of range; the message names the range.
    """
    if stage.scout is not None:
        if not 1 <= stage.scout.layer <= n_layers:
            raise DeeplayerError(
                f"layer {stage.scout.layer} is out of range: this model has {n_layers} decoder layers, and a scout "
                f"can score in layers 1 to {n_layers}"
            )
        return
    reads_attention = bool(stage.needs & {"queries", "keys", "values"})
    first = 1 if reads_attention and not stage.reads_next_layer else 0
    if not first <= stage.drop_after_layer < n_layers:
        raise DeeplayerError(
            f"layer {stage.drop_after_layer} is out of range: this model has {n_layers} decoder layers, "
            f"and tokens can be dropped after layers {first} to {n_layers - 1}"
        )
