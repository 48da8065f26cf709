"""Checks what a method returns: shapes at once, values for all drops of a batch together.

To read a value, the host waits for the device. So values are compared on the device, and the host reads the outcomes of
all drops in one copy, before any row is answered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.errors import DeeplayerError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from deeplayer_cli.pruning import Selection, Selector


@dataclass(frozen=True)
class ResultCheck:
    """The check of the values of one result.

    Attributes:
        faults: (3,) bool, on the device: whether scores are not finite, indices are wrong, counts are wrong.
        errors: the error for each of them.
    """

    faults: Tensor
    errors: tuple[DeeplayerError, DeeplayerError, DeeplayerError]


def check_result(
    method: str,
    selector: Selector,
    scores: Tensor,
    selection: Selection,
    shape: tuple[int, int],
    n_keep: int,
    width: int | None = None,
) -> ResultCheck:
    """Check the scores and the selection of B prompts.

    Args:
        method: the method's name, for messages.
        selector: made the selection.
        scores: from the scorer.
        selection: from the selector.
        shape: B, and the number of visual tokens to select from.
        n_keep: the number of tokens to keep.
        width: the number of channels of a hidden state; None if the selector reads none.

    Raises:
        DeeplayerError: a shape, a dtype, or a field of the selection is wrong; the message names the method.
    """
    indices, counts, (batch, n_visual) = selection.indices, selection.counts, shape
    if scores.shape != shape:
        raise _wrong(method, f"{tuple(scores.shape)} scores for {batch} prompts of {n_visual} visual tokens")
    if not isinstance(indices, torch.Tensor):
        raise _wrong(method, f"{type(indices).__name__} in place of a tensor of indices")
    if indices.dtype != torch.int64 or indices.shape != (batch, n_keep):
        returned = f"{indices.dtype} indices of shape {tuple(indices.shape)}"
        raise _wrong(method, f"{returned}, not int64 {(batch, n_keep)}")
    least = selector.least(n_keep)
    wrong_counts = _wrong(method, f"counts that are not between {least} and {n_keep}, or do not match its `adaptive`")
    if (counts is not None) != selector.adaptive:
        raise wrong_counts
    if (selection.features is not None) != selector.merges:
        raise _wrong(method, "features that do not match its `merges`")
    _refuse_shape(method, "features", selection.features, (batch, n_keep, width))
    _refuse_shape(method, "weights", selection.weights, (batch, n_keep))
    increase = indices[:, 1:] > indices[:, :-1]
    out_of_bounds = torch.zeros_like(increase[:0].any())
    if counts is not None:  # indices after a row's count may have any order
        increase = increase | (torch.arange(1, n_keep, device=indices.device) >= counts[:, None])
        out_of_bounds = ((counts < least) | (counts > n_keep)).any()
    is_sorted = increase.all() & ((indices >= 0) & (indices < n_visual)).all()
    return ResultCheck(
        torch.stack([~scores.isfinite().all(), ~is_sorted, out_of_bounds]),
        (
            _wrong(method, "scores that are not finite"),
            _wrong(method, f"indices that are not sorted, unique and below {n_visual}"),
            wrong_counts,
        ),
    )


def _refuse_shape(method: str, name: str, found: Tensor | None, shape: tuple[int | None, ...]) -> None:
    if found is not None and found.shape != shape:
        raise _wrong(method, f"{name} of shape {tuple(found.shape)}, not {shape}")


def refuse_faults(checks: Sequence[ResultCheck], is_model_finite: Callable[[], bool]) -> None:
    """Read the outcomes of checks; this waits for the device once.

    Args:
        checks: at least one.
        is_model_finite: whether the model's own numbers are finite; called only if scores are not. If the model itself
            overflowed, scores that are not finite are no fault of the method.

    Raises:
        DeeplayerError: a result is invalid; the message names the method.
    """
    outcomes = torch.stack([check.faults for check in checks]).cpu().tolist()
    for check, (not_finite, *others) in zip(checks, outcomes, strict=True):
        faults = (not_finite and is_model_finite(), *others)
        for is_fault, error in zip(faults, check.errors, strict=True):
            if is_fault:
                raise error


def _wrong(method: str, what: str) -> DeeplayerError:
    return DeeplayerError(f"method {method} is broken: it returned {what}")
