"""Selections of published methods, one token at a time, written from the papers and the authors' programs.

They know nothing of this package's methods. All take one prompt: lists of scores, and tensors (n, C) of features.
"""

from __future__ import annotations

import math

import torch

Merged = tuple[list[int], dict[int, torch.Tensor]]
"""The kept tokens, and the new features of those that others were merged into."""


def falling(scores: list[float], among: list[int] | range) -> list[int]:
    return sorted(among, key=lambda index: -scores[index])


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(a @ b) / (float(a.norm()) * float(b.norm()))


def visionzip(scores: list[float], keys: torch.Tensor, features: torch.Tensor, n_keep: int) -> Merged:
    """54 dominant and 10 contextual of 64: uniform targets among the others, which the rest joins by key cosine."""
    n_contextual = n_keep * 10 // 64
    dominant = falling(scores, range(len(scores)))[: n_keep - n_contextual]
    others = [index for index in range(len(scores)) if index not in dominant]
    if not n_contextual:
        return sorted(dominant), {}
    targets = others[:: max(1, len(others) // n_contextual)][:n_contextual]
    joined = {target: [] for target in targets}
    for index in others:
        if index not in targets:
            joined[max(targets, key=lambda target: cosine(keys[index], keys[target]))].append(features[index])
    merged = {
        target: features[target] + (torch.stack(members).mean(0) if members else 0)
        for target, members in joined.items()
    }
    return sorted(dominant + targets), merged


def sparsevlm(scores: list[float], features: torch.Tensor, n_keep: int) -> Merged:
    """The best stay; 30% of the others are merged into a tenth as many, by density peaks; both make up the budget."""
    n = len(scores)
    order = falling(scores, range(n))

    def sizes(n_best: int) -> tuple[int, int]:
        dropped = n - n_best
        recycled = int(dropped * 0.3) + 1
        return (recycled, int(recycled / 10) + 1) if dropped else (0, 0)

    n_best = max(kept for kept in range(1, n_keep + 1) if kept + sizes(kept)[1] <= n_keep)
    n_recycled, n_clusters = sizes(n_best)
    assert n_best + n_clusters == n_keep
    if not n_clusters:
        return sorted(order[:n_best]), {}
    recycled = sorted(order[n_best:][:n_recycled])
    scale = math.sqrt(features.shape[1])
    distance = {(i, j): float((features[i] - features[j]).norm()) / scale for i in recycled for j in recycled}
    density = {}
    for i in recycled:
        nearest = sorted(distance[i, j] for j in recycled)[:n_clusters]  # the token itself is the nearest
        density[i] = math.exp(-sum(d**2 for d in nearest) / n_clusters)
    peak = {}
    for i in recycled:
        # Two tokens nearest to each other are equally dense: the authors add noise; ours: the earlier is denser.
        denser = [distance[i, j] for j in recycled if (density[j], -j) > (density[i], -i)]
        peak[i] = density[i] * (min(denser) if denser else max(distance.values()))
    centres = sorted(recycled, key=lambda i: -peak[i])[:n_clusters]
    cluster = {i: i if i in centres else min(centres, key=lambda centre: distance[i, centre]) for i in recycled}
    merged = {
        centre: torch.stack([features[i] for i in recycled if cluster[i] == centre]).mean(0) for centre in centres
    }
    return sorted(order[:n_best] + centres), merged


def vispruner(scores: list[float], features: torch.Tensor, n_keep: int, important: float = 0.5) -> list[int]:
    """A share by class attention; from the others, by falling attention, 8 duplicates a round are removed."""
    order = falling(scores, range(len(scores)))
    n_important = int(n_keep * important)
    kept, others = order[:n_important], order[n_important:]
    n_diverse = n_keep - n_important
    while len(others) > n_diverse and n_diverse:
        evens, odds = others[::2], others[1::2]
        likeness = {even: max(cosine(features[even], features[odd]) for odd in odds) for even in evens}
        too_many = min(8, len(others) - n_diverse)
        others = sorted(evens, key=lambda even: -likeness[even])[too_many:] + odds
    return sorted(kept + (others if n_diverse else []))


def cdpruner(relevance: list[float], features: torch.Tensor, n_keep: int) -> list[int]:
    """Greedy MAP of a determinantal point process: the largest determinant of r_i cos_ij r_j at each step."""
    unit = features.double() / features.double().norm(dim=1, keepdim=True)
    r = torch.tensor(relevance, dtype=torch.float64)
    kernel = r[:, None] * (unit @ unit.T) * r
    taken: list[int] = []
    while len(taken) < n_keep:
        left = [index for index in range(len(r)) if index not in taken]
        taken.append(max(left, key=lambda index: float(kernel[[*taken, index]][:, [*taken, index]].det())))
    return sorted(taken)


def ivc_prune(
    similarity: torch.Tensor,
    text: list[int],
    start: int,
    angles: tuple[torch.Tensor, torch.Tensor],
    grid: tuple[int, int],
) -> tuple[list[int], list[int]]:
    """The rule for half of the tokens, for tiles of T tokens with the thumbnail last.

    Args:
        similarity: (S, S), softmax of value products, a mean over heads.
        text: the rows of the text.
        start: where the visual tokens begin.
        angles: cosines and sines of RoPE, (n, head_dim) each, for the visual tokens.
        grid: columns and rows of tiles; (1, 1) for a single tile without a thumbnail.

    Returns:
        What is kept, before the budget is filled up; and the order in which more tokens follow.
    """
    n = len(angles[0])
    n_tiles = grid[0] * grid[1] + 1 if grid != (1, 1) else 1
    size = n // n_tiles
    side, tail = math.isqrt(size), n - size
    columns = similarity[:, start : start + n]
    first = columns[text].mean(0).tolist()
    seeds = falling(first, range(tail, n))[: max(1, round(size * 0.01))]
    again = columns[[*(start + seed for seed in seeds), *text]].mean(0).tolist()
    ordered = falling(again, range(tail, n))
    by_place = set()
    for angle in angles:
        means = angle.mean(-1).tolist()
        for tile in range(n_tiles):
            by_place |= set(falling(means, range(tile * size, (tile + 1) * size))[: max(1, round(size * 0.1))])
    in_thumbnail = {index for index in by_place if index >= tail}
    n_more = max(0, max(1, round(size * 0.5)) - len(in_thumbnail))
    foreground = [index for index in ordered if index not in in_thumbnail][:n_more]
    under = set()
    for index in foreground if n_tiles > 1 else ():
        row, column = divmod(index - tail, side)
        for down in range(grid[1]):
            for right in range(grid[0]):
                y, x = row * grid[1] + down, column * grid[0] + right
                tile = y // side * grid[0] + x // side
                under.add(tile * size + y % side * side + x % side)
    priority = sorted(by_place | set(foreground) | under | set(seeds))
    more = [index for index in ordered if index not in priority]
    return priority, more + [index for index in falling(again, range(tail)) if index not in priority]
