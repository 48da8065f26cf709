"""SparseVLM (arXiv:2410.04417): three drops scored by the raters; the best of what is dropped is merged and kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.pruning.entry import Drop, Entry
from deeplayer_cli.pruning.merging import group_means, with_merged
from deeplayer_cli.pruning.method import Selection, Selector
from deeplayer_cli.pruning.methods.sparsevlm_nomerge import STEPS, RaterScorer
from deeplayer_cli.pruning.topk import best_first, ranks, topk

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.pruning.inputs import ScorerInputs


def n_recycled(n_dropped: int) -> int:
    """The number of dropped tokens that are merged: 30% of them, and one."""
    return int(0.3 * n_dropped) + 1 if n_dropped else 0


def n_clusters(n_dropped: int) -> int:
    """The number of tokens that they are merged into: a tenth of them, and one."""
    return n_recycled(n_dropped) // 10 + 1 if n_dropped else 0


@dataclass(frozen=True)
class Recycle(Selector):
    """Keeps the highest scores, and merges the best of the other tokens into clusters.

    1. The 30% of the other tokens with the highest scores, and one more, are recycled; the rest is dropped.
    2. A tenth of the recycled tokens, and one more, are cluster centres, see `density_clusters`.
    3. A recycled token joins the nearest centre, and the mean of a cluster is kept.

    Our choices: the published schedules count only what is kept by score; here the budget holds for both together.
    Published, merged tokens follow the kept ones; here each has its centre's place.
    """

    needs = frozenset({"features", "weights"})
    takes_padding = True
    merges = True

    def __call__(self, scores: Tensor, inputs: ScorerInputs, n_keep: int) -> Selection:
        """Return a selection of ``n_keep`` tokens."""
        n_visual = scores.shape[1]
        n_best = next(
            (n for n in range(n_keep, 0, -1) if n + n_clusters(n_visual - n) <= n_keep),
            1,  # a budget too small for all clusters
        )
        order = best_first(scores)
        best, recycled = order[:, :n_best], order[:, n_best:][:, : n_recycled(n_visual - n_best)].sort(dim=1).values
        features, weights = inputs.features, inputs.weights
        members = features.take_along_dim(recycled[..., None], dim=1)
        centres, cluster = density_clusters(members, n_keep - n_best)
        if not centres.shape[1]:
            return with_merged(features, weights, best, centres, members[:, :0], weights[:, :0])
        means, _ = group_means(members, cluster, centres.shape[1])
        new_weights = torch.zeros_like(means[..., 0], dtype=weights.dtype)
        new_weights = new_weights.scatter_add(1, cluster, weights.gather(1, recycled))
        return with_merged(features, weights, best, recycled.gather(1, centres), means, new_weights)


def density_clusters(members: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Cluster tokens by density peaks (Rodriguez and Laio 2014; k nearest neighbours as in arXiv:2204.08680).

    With distances divided by the root of C, the density of a token is ``exp(-mean squared distance)`` to its n nearest,
    itself included. Each token has a distance to the nearest denser token; the densest has the largest distance of all.
    The tokens with the highest products of both are centres; every other token joins the nearest centre. Of equal
    densities, the earlier token counts as denser; the published code adds noise.

    Args:
        members: (B, m, C).
        n: number of clusters, at most m.

    Returns:
        The centres (B, n), sorted, and the cluster of each token (B, m); both int64.
    """
    states = members.float()
    distance = torch.cdist(states, states, compute_mode="donot_use_mm_for_euclid_dist") / states.shape[-1] ** 0.5
    if not n:
        return distance.new_empty(len(members), 0, dtype=torch.int64), distance.new_empty(0, dtype=torch.int64)
    density = (-distance.topk(n, largest=False).values.square().mean(-1)).exp()
    order = ranks(density)
    denser = order[:, None] < order[:, :, None]  # [b, i, j]: j is denser than i
    furthest = distance.amax((1, 2), keepdim=True)
    to_denser = torch.where(denser, distance, furthest).amin(-1)
    centres = topk(to_denser * density, n)
    cluster = distance.gather(2, centres[:, None].expand(-1, distance.shape[1], -1)).argmin(-1)
    return centres, cluster.scatter(1, centres, torch.arange(n, device=centres.device).expand_as(centres))


ENTRY = Entry(
    "the tokens with the highest attention from the question's tokens that the image speaks to, in three steps; the "
    "best of the others are merged",
    "SparseVLM, arXiv:2410.04417. Ours: the budget holds for kept and merged tokens together",
    drops=tuple(Drop(lambda _: RaterScorer(), Recycle(), of_32=layer, schedule=schedule) for layer, schedule in STEPS),
    positions="renumber",
)
