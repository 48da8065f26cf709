"""The optimisers: Muon for hidden matrices, AdamW for everything else."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_ADAM_RATE = 2e-3
_WARM_UP = 100
_FINAL = 0.02


class Muon(torch.optim.Optimizer):
    """Momentum whose every step is made orthogonal (Keller Jordan, "Muon: An optimizer for hidden layers", 2024).

    torch has its own, which computes in bfloat16: slow on CPUs without it. This one stays in the parameters' dtype and
    handles matrices of one shape as one batch.

    Args:
        parameters: matrices only.
        lr: scaled by ``sqrt(rows / columns)`` for tall matrices.
        momentum: with Nesterov's look-ahead.
    """

    def __init__(self, parameters: Iterable[torch.Tensor], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # takes no closure
        """Update every matrix that has a gradient."""
        for group in self.param_groups:
            shapes = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes[parameter.shape].append(parameter)
            for (rows, columns), matrices in shapes.items():
                updates = orthogonalise(torch.stack([self._look_ahead(m, group["momentum"]) for m in matrices]))
                for matrix, update in zip(matrices, updates, strict=True):
                    matrix.add_(update, alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)

    def _look_ahead(self, parameter: torch.Tensor, momentum: float) -> torch.Tensor:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None  # noqa: S101 - checked by the caller
        velocity: torch.Tensor = state.setdefault("velocity", torch.zeros_like(parameter))
        velocity.mul_(momentum).add_(gradient)
        return gradient + momentum * velocity


def orthogonalise(matrices: torch.Tensor) -> torch.Tensor:
    """Push all singular values of [n, rows, columns] towards 1 with five quintic Newton-Schulz steps."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * (gram @ gram)) @ x
    return x.mT if tall else x


class Optimisers:
    """Both optimisers, with one schedule: warm-up, constant, then linear down to 2%.

    Args:
        named: the trained parameters; two-dimensional ones go to Muon, embeddings and output heads excepted.
        steps: of the whole phase.
        muon_rate: at its highest.
        constant_until: share of ``steps`` before the decay.
    """

    def __init__(
        self, named: Sequence[tuple[str, torch.Tensor]], steps: int, muon_rate: float, constant_until: float
    ) -> None:
        self._steps, self._constant = steps, constant_until * steps
        hidden = {name for name, p in named if p.ndim == 2 and not any(word in name for word in ("embed", "head"))}
        self._all = (
            (Muon([p for name, p in named if name in hidden], muon_rate), muon_rate),
            (
                torch.optim.AdamW(
                    [p for name, p in named if name not in hidden], _ADAM_RATE, (0.9, 0.98), weight_decay=0.0
                ),
                _ADAM_RATE,
            ),
        )

    def step(self, loss: torch.Tensor, number: int) -> None:
        """Descend once; ``number`` counts the phase's steps from 0."""
        for optimiser, _ in self._all:
            optimiser.zero_grad()
        loss.backward()
        share = self._share(number)
        for optimiser, rate in self._all:
            for group in optimiser.param_groups:
                group["lr"] = rate * share
            optimiser.step()

    def _share(self, number: int) -> float:
        if number < _WARM_UP:
            return (number + 1) / _WARM_UP
        if number < self._constant:
            return 1.0
        return max(_FINAL, 1.0 - (1.0 - _FINAL) * (number - self._constant) / (self._steps - self._constant))

    def state_dict(self) -> list[dict[str, Any]]:
        """What a resumed run needs."""
        return [optimiser.state_dict() for optimiser, _ in self._all]

    def load_state_dict(self, states: Sequence[dict[str, Any]]) -> None:
        """Continue from ``state_dict``."""
        for (optimiser, _), state in zip(self._all, states, strict=True):
            optimiser.load_state_dict(state)
