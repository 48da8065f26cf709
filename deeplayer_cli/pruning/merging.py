"""Merging: several visual tokens become one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional

from deeplayer_cli.pruning.method import Selection

if TYPE_CHECKING:
    from torch import Tensor


def group_means(members: Tensor, groups: Tensor, n_groups: int) -> tuple[Tensor, Tensor]:
    """Means of the members of each group.

    Args:
        members: (B, m, C).
        groups: (B, m) int64, the group of each member.
        n_groups: number of groups.

    Returns:
        The means (B, n_groups, C), 0 for a group without members; and the number of members (B, n_groups).
    """
    belongs = functional.one_hot(groups, n_groups).mT.to(members.dtype)  # (B, n_groups, m)
    counts = belongs.sum(-1)
    return belongs @ members / counts.clamp(min=1)[..., None], counts


def with_merged(
    features: Tensor, weights: Tensor, kept: Tensor, merged: Tensor, new_features: Tensor, new_weights: Tensor
) -> Selection:
    """A selection of kept tokens, and of merged ones that take the places of some other tokens.

    Args:
        features: (B, n_visual, C) of all tokens.
        weights: (B, n_visual) of all tokens.
        kept: (B, k) indices of the tokens that are kept as they are.
        merged: (B, m) indices of the tokens whose places merged ones take.
        new_features: (B, m, C) of the merged tokens.
        new_weights: (B, m), the number of original visual tokens in each merged one.
    """
    place = merged[..., None].expand(-1, -1, features.shape[2])
    features, weights = features.scatter(1, place, new_features), weights.scatter(1, merged, new_weights)
    indices = kept.new_empty(len(kept), kept.shape[1] + merged.shape[1])
    indices[:, : kept.shape[1]], indices[:, kept.shape[1] :] = kept, merged
    indices = indices.sort(dim=1).values
    return Selection(indices, None, features.take_along_dim(indices[..., None], dim=1), weights.gather(1, indices))
