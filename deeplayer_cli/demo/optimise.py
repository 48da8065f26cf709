"""The optimisers: Muon for hidden matrices, AdamW for all other parameters."""

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
    """Nesterov momentum with orthogonalised updates (Keller Jordan 2024, "Muon: An optimizer for hidden layers").

    ``torch.optim.Muon`` computes in bfloat16, which is slow on CPUs without bfloat16 instructions. This optimiser
    computes in the parameters' dtype, and orthogonalises all matrices of equal shape as one batch.

    Args:
        parameters: two-dimensional parameters.
        lr: learning rate; multiplied by ``sqrt(rows / columns)`` for matrices with more rows than columns.
        momentum: coefficient of the Nesterov momentum.
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
        assert gradient is not None  # noqa: S101 - the caller checks it
        velocity: torch.Tensor = state.setdefault("velocity", torch.zeros_like(parameter))
        velocity.mul_(momentum).add_(gradient)
        return gradient + momentum * velocity


def orthogonalise(matrices: torch.Tensor) -> torch.Tensor:
    """Move the singular values of matrices towards 1 with five quintic Newton-Schulz steps, as in Muon.

    Args:
        matrices: [n, rows, columns].

    Returns:
        [n, rows, columns], in the same dtype.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * (gram @ gram)) @ x
    return x.mT if tall else x


class Optimisers:
    """Muon and AdamW with one schedule: linear warm-up, constant rate, linear decay to 2% of the rate.

    Args:
        named: names and trained parameters. Muon takes the two-dimensional ones, except embeddings and heads. AdamW
            takes the others.
        steps: number of steps of the phase.
        muon_rate: Muon's constant learning rate.
        constant_until: share of ``steps`` after which the decay starts.
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
        """Take one optimisation step.

        Args:
            loss: scalar loss; gradients are computed here.
            number: number of the step in the phase, from 0.
        """
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
        """Return the states of both optimisers, for ``load_state_dict``."""
        return [optimiser.state_dict() for optimiser, _ in self._all]

    def load_state_dict(self, states: Sequence[dict[str, Any]]) -> None:
        """Restore the states that ``state_dict`` returned."""
        for (optimiser, _), state in zip(self._all, states, strict=True):
            optimiser.load_state_dict(state)
