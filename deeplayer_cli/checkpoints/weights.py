"""Map stored tensors to a model's parameters, and load them.

Each layout has a tuple of ``TensorRule``s. ``plan`` first applies the rules to names and shapes only. So it finds every
missing or unexpected tensor and every wrong shape before any weights are read. ``stream`` then loads the weights.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from deeplayer_cli.checkpoints.files import StoredTensor, open_tensors
from deeplayer_cli.errors import DeeplayerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

_FIELDS = {"layer": r"\d+", "kind": r"weight|bias", "rest": r".+"}
_SHOWN = 3  # names in an error message


def whole(tensor: Tensor) -> tuple[Tensor, ...]:
    """Return a tensor unsplit, as a tuple of one."""
    return (tensor,)


def thirds(tensor: Tensor) -> tuple[Tensor, ...]:
    """Split a fused [3 * hidden, ...] tensor into query, key and value, each [hidden, ...]."""
    return tensor.chunk(3)


@dataclass(frozen=True)
class TensorRule:
    """A rule that maps a stored tensor to parameters of the native model.

    Attributes:
        source: pattern of the stored name, with the fields ``{layer}`` (a number), ``{kind}`` (weight or bias) or
            ``{rest}`` (any text).
        targets: names of the parameters, with the same fields.
        split: splits the stored tensor into one piece per target; it must also run on the ``meta`` device.
    """

    source: str
    targets: tuple[str, ...]
    split: Callable[[Tensor], Sequence[Tensor]] = whole

    def apply(self, name: str) -> tuple[str, ...]:
        """Return the names of the parameters for the stored tensor ``name``; none if the rule does not match it."""
        pattern = re.escape(self.source)
        for field, values in _FIELDS.items():
            pattern = pattern.replace(rf"\{{{field}\}}", f"(?P<{field}>{values})")
        match = re.fullmatch(pattern, name)
        return tuple(target.format(**match.groupdict()) for target in self.targets) if match else ()


@dataclass(frozen=True)
class Move:
    """The loading of one stored tensor.

    Attributes:
        name: name of the stored tensor.
        file: safetensors file that holds it.
        targets: names of the parameters that it fills.
        split: splits it into one piece per target.
    """

    name: str
    file: Path
    targets: tuple[str, ...]
    split: Callable[[Tensor], Sequence[Tensor]]


def targets(stored: Iterable[str], rules: Sequence[TensorRule]) -> set[str]:
    """Return the names of all parameters that the rules map the stored tensors to."""
    return {target for name in stored for rule in rules for target in rule.apply(name)}


def plan(folder: Path, stored: Mapping[str, StoredTensor], rules: Sequence[TensorRule], model: nn.Module) -> list[Move]:
    """Match all stored tensors with all parameters.

    Args:
        folder: the checkpoint folder, for the message.
        stored: the checkpoint's tensors by name.
        rules: rules of the layout; the first rule that matches a name is used.
        model: the model to fill; only names and shapes of its parameters are read. Tied parameters count once.

    Returns:
        One move per stored tensor, for ``stream``.

    Raises:
        DeeplayerError: a parameter has no tensor, a tensor has no parameter, or their shapes differ.
    """
    open_targets = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    moves, unexpected, misshapen = [], [], []
    for name, tensor in stored.items():
        rule = next((rule for rule in rules if rule.apply(name)), None)
        names = rule.apply(name) if rule else ()
        if rule is None or not open_targets.keys() >= set(names):
            unexpected.append(name)
            continue
        shapes = [open_targets.pop(target) for target in names]
        if _split_shapes(rule, tensor.shape) != shapes:
            misshapen.append(f"{name} {list(tensor.shape)}")
        moves.append(Move(name, tensor.file, names, rule.split))
    problems = {"missing": list(open_targets), "unexpected": unexpected, "of another shape": misshapen}
    if any(problems.values()):
        found = "; ".join(f"{len(names)} {kind}: {_some(names)}" for kind, names in problems.items() if names)
        raise DeeplayerError(f"the tensors in {folder} do not match its config.json ({found})")
    return moves


_BAR: dict[str, Any] = {"disable": None, "leave": False, "delay": 1, "dynamic_ncols": True}  # on a terminal, after 1 s


def stream(moves: Iterable[Move], model: nn.Module, device: torch.device) -> None:
    """Fill a model whose parameters lie on the ``meta`` device, one stored tensor at a time.

    A bar on stderr, if that is a terminal, shows how far the loading is.

    Args:
        moves: result of ``plan``.
        model: the model to fill; its parameters keep their dtype.
        device: device of the loaded parameters.

    Raises:
        DeeplayerError: a file is damaged or cannot be read.
    """
    by_file = defaultdict(list)
    for move in moves:
        by_file[move.file].append(move)
    size = sum(parameter.numel() * parameter.dtype.itemsize for parameter in model.parameters())
    n_moves = sum(map(len, by_file.values()))
    with tqdm(total=n_moves, desc=f"loading {size / 1e9:.1f} GB of weights", unit="tensor", **_BAR) as bar:
        for file, file_moves in by_file.items():
            with open_tensors(file) as tensors:
                for move in file_moves:
                    for name, piece in zip(move.targets, move.split(tensors.get_tensor(move.name)), strict=True):
                        materialise(model, name, device).copy_(piece)
                    bar.update()


def materialise(model: nn.Module, name: str, device: torch.device) -> Tensor:
    """Replace a parameter on the ``meta`` device by an uninitialised one on ``device``, and return it.

    Args:
        model: the model; changed in place.
        name: full name of the parameter.
        device: device of the new parameter.
    """
    owner_name, _, leaf = name.rpartition(".")
    owner = model.get_submodule(owner_name)
    parameter = torch.empty_like(owner.get_parameter(leaf), device=device)
    owner.register_parameter(leaf, nn.Parameter(parameter, requires_grad=False))
    return parameter


def _split_shapes(rule: TensorRule, shape: tuple[int, ...]) -> list[tuple[int, ...]] | None:
    try:
        return [tuple(piece.shape) for piece in rule.split(torch.empty(shape, device="meta"))]
    except (RuntimeError, IndexError):  # a shape that cannot be split this way
        return None


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
