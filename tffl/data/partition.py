"""How training images are split over clients: pure functions on labels.

Each returns one array of positions per shard, int64 and ascending; the arrays are disjoint. All
randomness comes from the generator that is passed in.
"""

from __future__ import annotations

import numpy as np

from tffl.core.errors import UsageError, require


def rank_in_class(labels: np.ndarray) -> np.ndarray:
    """Returns for each sample how many earlier samples share its label, int64 `[n]`.

    >>> rank_in_class(np.array([7, 3, 7, 7, 3]))
    array([0, 0, 1, 2, 1])
    """
    order = np.argsort(labels, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(labels))])
    ranks = np.empty(len(labels), dtype=np.int64)
    ranks[order] = np.arange(len(labels)) - starts[labels[order]]
    return ranks


def balanced(labels: np.ndarray, limit: int, generator: np.random.Generator | None) -> np.ndarray:
    """Chooses up to `limit` samples, as evenly over the classes as their sizes allow.

    Args:
      labels: int `[n]`.
      limit: How many; all of them if there are fewer.
      generator: Draws the samples; None takes the first ones of each class.

    Returns:
      Positions, int64, ascending.

    >>> balanced(np.array([0, 0, 0, 0, 1, 2, 2]), 5, None)
    array([0, 1, 4, 5, 6])
    """
    order = np.arange(len(labels)) if generator is None else generator.permutation(len(labels))
    # Everyone's first sample comes before anyone's second one.
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
    """Deals shuffled samples in shards whose sizes differ by at most one."""
    _require_enough(labels, count)
    owner = np.empty(len(labels), dtype=np.int64)
    owner[generator.permutation(len(labels))] = np.arange(len(labels)) % count
    return _collect(owner, count)


def round_robin(labels: np.ndarray, count: int) -> list[np.ndarray]:
    """Deals sample i to shard i mod `count`, in the order given.

    Anomaly Detection in Federated Learning, the setting of the bias-anomaly experiments.

    >>> round_robin(np.zeros(5, int), 2)
    [array([0, 2, 4]), array([1, 3])]
    """
    _require_enough(labels, count)
    return _collect(np.arange(len(labels)) % count, count)


def dirichlet(
    labels: np.ndarray, count: int, beta: float, generator: np.random.Generator
) -> list[np.ndarray]:
    """Splits each class over the shards in proportions drawn from Dirichlet(β, …, β).

    Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification
        Tzu-Ming Harry Hsu, Hang Qi, Matthew Brown. 2019.
    in the form of Li, Diao, Chen, He (ICDE 2022): proportions per class, not per client.

    Args:
      labels: int `[n]`.
      count: Number of shards.
      beta: Concentration, above 0; the smaller, the more uneven.
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
    return _none_empty(_collect(owner, count), beta)


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

    The paper deals pieces of the label-sorted data blindly, so that a client may draw the same
    class twice; here its classes are distinct. A class is cut in as many pieces as its size
    deserves, and pieces of one class differ by at most one sample. With fewer pieces than classes
    (count × classes below their number) some classes belong to nobody.

    Args:
      labels: int `[n]`.
      count: Number of shards.
      classes: Distinct classes in each shard.
      generator: Draws who gets which classes and samples.

    Raises:
      UsageError: There are fewer classes than that, or too few samples to cut.
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
        # The classes with most pieces left come first, or a last shard would find only one kind.
        left = pieces - [len(h) for h in holders]
        for kind in np.lexsort((generator.random(len(present)), -left))[:classes]:
            holders[kind].append(shard)
    owner = np.full(len(labels), count, dtype=np.int64)
    for member, holder in zip(members, holders, strict=True):
        if holder:
            owner[member] = np.array(holder)[np.arange(len(member)) % len(holder)]
    return _collect(owner, count + 1)[:count]


def _pieces(sizes: np.ndarray, count: int, classes: int) -> np.ndarray:
    """Apportions `count * classes` pieces to classes by size; at most one per shard and sample."""
    most = np.minimum(sizes, count)
    require(
        most.sum() >= count * classes,
        f"{sizes.sum()} training images are too few for {count} shards of {classes} classes each: "
        "use fewer clients or fewer classes a client",
    )
    pieces = np.zeros(len(sizes), dtype=np.int64)
    for _ in range(count * classes):
        # Adams's method: nobody gets a second piece before everyone has a first one.
        quotient = np.divide(sizes, pieces, out=np.full(len(sizes), np.inf), where=pieces > 0)
        pieces[np.argmax(np.where(pieces < most, quotient, -1))] += 1
    return pieces


def _collect(owner: np.ndarray, count: int) -> list[np.ndarray]:
    """Turns the owner of each sample into the samples of each owner."""
    order = np.argsort(owner, kind="stable")
    return np.split(order, np.cumsum(np.bincount(owner, minlength=count))[:-1])


def _require_enough(labels: np.ndarray, count: int) -> None:
    require(
        len(labels) >= count,
        f"{len(labels)} training images are too few for {count} shards: "
        "use more images or fewer clients",
    )
