"""Splits training images over clients: pure functions on labels.

Each function returns one array of positions per shard, int64 and ascending; the arrays are
disjoint. Random choices are made by the generator that is passed in.
"""

from __future__ import annotations

import numpy as np

from tffl.core.errors import UsageError, require


def rank_in_class(labels: np.ndarray) -> np.ndarray:
    """Returns the number of earlier samples with the same label, int64 `[n]`.

    >>> rank_in_class(np.array([7, 3, 7, 7, 3]))
    array([0, 0, 1, 2, 1])
    """
    order = np.argsort(labels, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(labels))])
    ranks = np.empty(len(labels), dtype=np.int64)
    ranks[order] = np.arange(len(labels)) - starts[labels[order]]
    return ranks


def balanced(labels: np.ndarray, limit: int, generator: np.random.Generator | None) -> np.ndarray:
    """Chooses up to `limit` samples, spread over the classes as evenly as their sizes allow.

    Args:
      labels: int `[n]`.
      limit: Number of samples to choose; if there are fewer, all are chosen.
      generator: Draws the samples; if None, the first samples of each class are chosen.

    Returns:
      Positions, int64, ascending.

    >>> balanced(np.array([0, 0, 0, 0, 1, 2, 2]), 5, None)
    array([0, 1, 4, 5, 6])
    """
    order = np.arange(len(labels)) if generator is None else generator.permutation(len(labels))
    # The first samples of all classes come before any second sample.
    turns = np.argsort(rank_in_class(labels[order]), kind="stable")
    return np.sort(order[turns[:limit]])


def held_out(labels: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    """Chooses a share of each class for testing, rounded: one sample at least, but never all.

    Args:
      labels: int `[n]`.
      share: Between 0 and 1.
      generator: Draws the samples.

    Returns:
      bool `[n]`, True for test samples.
    """
    kept = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        count = min(max(1, round(share * len(members))), len(members) - 1)
        kept[members[:count]] = True
    return kept


def iid(labels: np.ndarray, count: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Splits shuffled samples into `count` shards whose sizes differ by at most one.

    Args:
      labels: int `[n]`.
      count: Number of shards.
      generator: Shuffles the samples.

    Raises:
      UsageError: There are fewer samples than shards.
    """
    _require_enough(labels, count)
    owner = np.empty(len(labels), dtype=np.int64)
    owner[generator.permutation(len(labels))] = np.arange(len(labels)) % count
    return _samples_by_owner(owner, count)


def round_robin(labels: np.ndarray, count: int) -> list[np.ndarray]:
    """Puts sample i into shard i mod `count`; the bias-anomaly experiments split their data so.

    Args:
      labels: int `[n]`.
      count: Number of shards.

    Raises:
      UsageError: There are fewer samples than shards.

    >>> round_robin(np.zeros(5, int), 2)
    [array([0, 2, 4]), array([1, 3])]
    """
    _require_enough(labels, count)
    return _samples_by_owner(np.arange(len(labels)) % count, count)


def dirichlet(
    labels: np.ndarray, count: int, beta: float, generator: np.random.Generator
) -> list[np.ndarray]:
    """Splits each class over the shards in proportions drawn from Dirichlet(β, …, β).

    Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification
        Tzu-Ming Harry Hsu, Hang Qi, Matthew Brown. 2019.
    Proportions are drawn per class, not per client, as by Li, Diao, Chen, He (ICDE 2022).

    Args:
      labels: int `[n]`.
      count: Number of shards.
      beta: Concentration β, above 0; the smaller, the more uneven.
      generator: Draws proportions and samples.

    Raises:
      UsageError: A shard would be empty.
    """
    _require_enough(labels, count)
    owner = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        shares = generator.dirichlet(np.full(count, beta))
        cuts = np.rint(np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
        owner[members] = np.searchsorted(cuts, np.arange(len(members)), side="right")
    return _none_empty(_samples_by_owner(owner, count), beta)


def dirichlet_size(
    labels: np.ndarray, count: int, beta: float, generator: np.random.Generator
) -> list[np.ndarray]:
    """Deals shuffled samples in shards of uneven sizes: shares drawn from Dirichlet(β, …, β).

    Federated Learning on Non-IID Data Silos: An Experimental Study
        Qinbin Li, Yiqun Diao, Quan Chen, Bingsheng He. ICDE 2022. (quantity skew)

    Args:
      labels: int `[n]`.
      count: Number of shards.
      beta: Concentration, above 0; the smaller, the more uneven.
      generator: Draws sizes and samples.

    Raises:
      UsageError: A shard would be empty.
    """
    _require_enough(labels, count)
    shares = generator.dirichlet(np.full(count, beta))
    cuts = np.rint(np.cumsum(shares)[:-1] * len(labels)).astype(np.int64)
    shuffled = generator.permutation(len(labels))
    return _none_empty([np.sort(part) for part in np.split(shuffled, cuts)], beta)


def _none_empty(shards: list[np.ndarray], beta: float) -> list[np.ndarray]:
    empty = sum(len(shard) == 0 for shard in shards)
    if empty:
        raise UsageError(
            f"Dirichlet with beta = {beta:g} leaves {empty} of {len(shards)} shards without "
            "images: use a larger beta, fewer clients or another seed"
        )
    return shards


def shards(
    labels: np.ndarray, count: int, classes: int, generator: np.random.Generator
) -> list[np.ndarray]:
    """Gives each shard samples of exactly `classes` classes.

    Communication-Efficient Learning of Deep Networks from Decentralized Data
        Brendan McMahan, Eider Moore, Daniel Ramage, Seth Hampson, Blaise Agüera y Arcas.
        AISTATS 2017.

    The paper hands out pieces of the label-sorted data at random, so that a client may get the same
    class twice; here the classes of a shard are distinct. A class is cut into a number of pieces
    that is proportional to its size, and pieces of one class differ by at most one sample. If
    count × classes is less than the number of classes, some classes belong to no shard.

    Args:
      labels: int `[n]`.
      count: Number of shards.
      classes: Number of distinct classes in each shard.
      generator: Draws the classes and samples of each shard.

    Raises:
      UsageError: The labels have fewer classes, or there are too few samples.
    """
    _require_enough(labels, count)
    present = generator.permutation(np.unique(labels))
    require(
        classes <= len(present),
        f"{classes} classes a client is not allowed: the training images have {len(present)}",
    )
    members = [generator.permutation(np.flatnonzero(labels == label)) for label in present]
    pieces = _pieces(np.array([len(m) for m in members]), count, classes)
    holders: list[list[int]] = [[] for _ in present]
    for shard in generator.permutation(count):
        # Classes with the most pieces left come first; else the last shard might find one only.
        left = pieces - [len(h) for h in holders]
        for position in np.lexsort((generator.random(len(present)), -left))[:classes]:
            holders[position].append(shard)
    owner = np.full(len(labels), count, dtype=np.int64)
    for member, holder in zip(members, holders, strict=True):
        if holder:
            owner[member] = np.array(holder)[np.arange(len(member)) % len(holder)]
    return _samples_by_owner(owner, count + 1)[:count]


def _pieces(sizes: np.ndarray, count: int, classes: int) -> np.ndarray:
    """Returns how many of `count * classes` pieces each class is cut into, int64 `[classes]`.

    The numbers follow the classes' sizes; a class has at most one piece per shard and per sample.
    """
    most = np.minimum(sizes, count)
    require(
        most.sum() >= count * classes,
        f"{sizes.sum()} training images are too few for {count} shards of {classes} classes each: "
        "use fewer clients or fewer classes a client",
    )
    pieces = np.zeros(len(sizes), dtype=np.int64)
    for _ in range(count * classes):
        # Adams's method: no class gets a second piece before every class has one.
        quotient = np.divide(sizes, pieces, out=np.full(len(sizes), np.inf), where=pieces > 0)
        pieces[np.argmax(np.where(pieces < most, quotient, -1))] += 1
    return pieces


def _samples_by_owner(owner: np.ndarray, count: int) -> list[np.ndarray]:
    """Returns the samples of each shard, from the shard of each sample int64 `[n]`."""
    order = np.argsort(owner, kind="stable")
    return np.split(order, np.cumsum(np.bincount(owner, minlength=count))[:-1])


def _require_enough(labels: np.ndarray, count: int) -> None:
    require(
        len(labels) >= count,
        f"{len(labels)} training images are too few for {count} shards: "
        "use more images or fewer clients",
    )
