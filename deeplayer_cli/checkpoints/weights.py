"""From stored tensors to a model's parameters: one table of names, checked whole and then streamed.

A layout is a tuple of ``TensorRule``s. The same rule that later cuts a tensor is first run on its shape alone, so every
missing, unexpected or misshapen tensor is known before the first byte of weights is read.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from deeplayer_cli.checkpoints.files import StoredTensor, open_tensors
from deeplayer_cli.errors import DeeplayerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

_FIELDS = {"layer": r"\d+", "kind": r"weight|bias", "rest": r".+"}
_SHOWN = 3  # names in an error message


def whole(tensor: Tensor) -> tuple[Tensor, ...]:
    """The split of a tensor that stays in one piece."""
    return (tensor,)


def thirds(tensor: Tensor) -> tuple[Tensor, ...]:
    """The split of a fused [3 * hidden, ...] tensor into query, key and value."""
    return tensor.chunk(3)


@dataclass(frozen=True)
class TensorRule:
    """One line of a layout's table: a stored name, the parameters it becomes, and how it is cut into them.

    Attributes:
        source: the stored name, with ``{layer}``, ``{kind}`` (weight or bias) or ``{rest}`` standing for what varies.
        targets: parameter names of the native model, with the same fields.
        split: cuts the stored tensor into one piece per target; it must also run on the ``meta`` device.
    """

    source: str
    targets: tuple[str, ...]
    split: Callable[[Tensor], Sequence[Tensor]] = whole

    def apply(self, name: str) -> tuple[str, ...]:
        """The parameters that the stored tensor ``name`` becomes; none where the rule is about another."""
        pattern = re.escape(self.source)
        for field, values in _FIELDS.items():
            pattern = pattern.replace(rf"\{{{field}\}}", f"(?P<{field}>{values})")
        match = re.fullmatch(pattern, name)
        return tuple(target.format(**match.groupdict()) for target in self.targets) if match else ()


@dataclass(frozen=True)
class Move:
    """One stored tensor and what becomes of it."""

    name: str
    file: Path
    targets: tuple[str, ...]
    split: Callable[[Tensor], Sequence[Tensor]]


def targets(stored: Iterable[str], rules: Sequence[TensorRule]) -> set[str]:
    """The names of all parameters that some stored tensor maps to."""
    return {target for name in stored for rule in rules for target in rule.apply(name)}


def plan(folder: Path, stored: Mapping[str, StoredTensor], rules: Sequence[TensorRule], model: nn.Module) -> list[Move]:
    """Match all stored tensors with all parameters.

    Args:
        folder: named in errors.
        stored: the checkpoint's tensors by name.
        rules: the first that knows a name decides.
        model: the model to fill; only its names and shapes matter. Tied parameters count once.

    Raises:
        DeeplayerError: a parameter has no tensor, a tensor no parameter, or their shapes differ.
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
        raise DeeplayerError(f"the tensors in {folder} are not those that its config.json describes ({found})")
    return moves


def stream(moves: Iterable[Move], model: nn.Module, device: torch.device) -> None:
    """Fill a model whose parameters lie on the ``meta`` device, one stored tensor at a time.

    Args:
        moves: from ``plan``.
        model: its parameters already have the dtype that they shall have.
        device: where they shall lie.

    Raises:
        DeeplayerError: a file is damaged.
    """
    by_file = defaultdict(list)
    for move in moves:
        by_file[move.file].append(move)
    for file, file_moves in by_file.items():
        with open_tensors(file) as tensors:
            for move in file_moves:
                for name, piece in zip(move.targets, move.split(tensors.get_tensor(move.name)), strict=True):
                    materialise(model, name, device).copy_(piece)


def materialise(model: nn.Module, name: str, device: torch.device) -> Tensor:
    """Give the parameter ``name`` memory on ``device`` and return it, its content undefined."""
    owner_name, _, leaf = name.rpartition(".")
    owner = model.get_submodule(owner_name)
    parameter = torch.empty_like(owner.get_parameter(leaf), device=device)
    owner.register_parameter(leaf, nn.Parameter(parameter, requires_grad=False))
    return parameter


def _split_shapes(rule: TensorRule, shape: tuple[int, ...]) -> list[tuple[int, ...]] | None:
    try:
        return [tuple(piece.shape) for piece in rule.split(torch.empty(shape, device="meta"))]
    except (RuntimeError, IndexError):  # a shape that cannot be cut this way
        return None


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
