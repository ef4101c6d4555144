"""Naive versions of the rules: direct transcriptions of the papers with NumPy and scikit-learn.

`tffl bench defenses` compares tffl's rules with them, and tests check that both agree. They use
whole-matrix expressions or plain loops over clients, without blocks or threads and without regard
to memory. They need finite rows and return only the aggregate, without scores or reasons.

They treat all columns as trainable, which favors neither side: 0.09 % of resnet18's columns are
BatchNorm statistics. Means are weighted by sample counts where tffl's are. With the options of the
benchmark each computes the same as tffl's rule, up to rounding, with these differences:

- `bulyan` and `krum` take the first of tied rows; with f = 1 or 2 Bulyan's last rows always tie.
- `auror` splits all columns at once: scikit-learn's `KMeans` would take hours, column by column.
- `deepsight` breaks ties between distances by the order of clients.
- `fldetector` is correct if all clients take part and none has been convicted yet.
- `mud-hog` is correct in the first round that suspects anyone, if all clients take part.
- `signguard` needs a bandwidth above 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from tffl.core import seeds
from tffl.core.updates import Updates
from tffl.defenses.base import State
from tffl.defenses.server import Server


@dataclass(frozen=True)
class Case:
    """One round and its server: the common input of tffl's rules and the naive versions.

    Attributes:
      updates: Finite updates, one row per client in the original order.
      server: A server with root data.
      state: The state of tffl's rule after earlier rounds.
      malicious: f, the number of malicious clients that the rules assume.
    """

    updates: Updates
    server: Server
    state: State
    malicious: int

    @property
    def rows(self) -> np.ndarray:
        """The updates, float32 `[n, d]`."""
        return self.updates.matrix

    def generator(self, purpose: str) -> np.random.Generator:
        """Returns the generator that tffl's rule uses, so that both draw the same numbers."""
        return seeds.generator(self.server.seed, purpose, self.updates.round)

    def average(self, accepted: np.ndarray) -> np.ndarray:
        """Returns FedAvg's mean of some rows, float32 `[d]`.

        Args:
          accepted: A mask, bool `[n]`, or row numbers.
        """
        return _average(self.rows[accepted], self.updates.sample_counts[accepted])


def none(case: Case) -> np.ndarray:
    """Averages by sample counts."""
    return _average(case.rows, case.updates.sample_counts)


def alignins(case: Case) -> np.ndarray:
    """Averages clipped rows whose signs and angles are near the median."""
    rows, start = case.rows.astype(np.float64), case.updates.start
    count = max(1, int(0.3 * rows.shape[1]))
    principal = np.sign(np.sign(rows).sum(axis=0))
    largest = [np.argpartition(-np.abs(row), count - 1)[:count] for row in rows]
    signs = [
        (np.sign(row[at]) == principal[at]).mean() for row, at in zip(rows, largest, strict=True)
    ]
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(start)
    angles = np.divide(rows @ start, lengths, out=np.zeros(len(rows)), where=lengths > 0)
    kept = _near_median(np.array(signs)) & _near_median(angles)
    return _average(_clipped(case.rows[kept]), case.updates.sample_counts[kept])


def auror(case: Case) -> np.ndarray:
    """Tries every split of every sorted column, and counts each client's splits in the minority."""
    n, d = case.rows.shape
    order = np.argsort(case.rows, axis=0)
    ranked = np.take_along_axis(case.rows, order, axis=0).astype(np.float64)
    ranked -= ranked.mean(axis=0)
    sizes, sums = np.arange(1, n)[:, None], np.cumsum(ranked, axis=0)[:-1]
    low, high = sums / sizes, -sums / (n - sizes)
    errors = (ranked**2).sum(axis=0) - sizes * low**2 - (n - sizes) * high**2
    best = errors.argmin(axis=0)
    at_best = (best, np.arange(d))
    gap, spread = (high - low)[at_best], np.sqrt(errors[at_best] / (n - 2))
    indicative = gap > 5 * spread
    place, lower = np.argsort(order, axis=0)[:, indicative], best[indicative] + 1
    minority = np.where(2 * lower < n, place < lower, place >= lower) & (2 * lower != n)
    return case.average(minority.sum(axis=1) <= 0.5 * indicative.sum())


def bias_anomaly(case: Case) -> np.ndarray:
    """Leaves out clients whose final bias is far from the mean bias."""
    bias = case.rows[:, case.updates.layout.final_bias]
    scores = np.abs(bias - bias.mean(axis=0)).max(axis=1)
    median = np.median(scores)
    deviation = 1.4826 * np.median(np.abs(scores - median))
    return case.average(scores <= median + 3.5 * deviation)


def bucketing(case: Case) -> np.ndarray:
    """Averages random pairs of rows, and then all pairs."""
    buckets = case.generator("bucketing").permutation(np.arange(len(case.rows)) // 2)
    mixed = np.array([case.rows[buckets == k].mean(axis=0) for k in range(buckets.max() + 1)])
    return _average(mixed, np.bincount(buckets, weights=case.updates.sample_counts))


def bulyan(case: Case) -> np.ndarray:
    """Selects rows one by one with Krum, and averages the values nearest to column medians."""
    n, f = len(case.rows), case.malicious
    distances, rest, chosen = _squared_distances(case.rows), list(range(n)), []
    for _ in range(n - 2 * f):
        scores = _krum_scores(distances[np.ix_(rest, rest)], f)
        chosen.append(rest.pop(int(np.argmin(scores))))
    rows = case.rows[chosen]
    nearest = np.argsort(np.abs(rows - np.median(rows, axis=0)), axis=0)[: n - 4 * f]
    return np.take_along_axis(rows, nearest, axis=0).mean(axis=0)


def centered_clipping(case: Case) -> np.ndarray:
    """Takes one clipped step from the last aggregate."""
    center = case.state["center"]
    differences = case.rows - center
    return center + _clipped(differences).mean(axis=0)


def clipped_mean(case: Case) -> np.ndarray:
    """Averages rows clipped to their median norm."""
    return norm_clipping(case)


def coalition(case: Case) -> np.ndarray:
    """Leaves out groups whose members have much more in common than with others; no images."""
    centered = case.rows - np.median(case.rows, axis=0).astype(np.float64)
    centered /= np.linalg.norm(centered, axis=1, keepdims=True)
    cosines, left = centered @ centered.T, np.arange(len(case.rows))
    room = len(left) // 2
    while room >= 2:
        groups = _proposed(cosines[np.ix_(left, left)], room)
        gaps = [_cohesion(cosines[np.ix_(left, left)], group) for group in groups]
        if max(gaps, default=0) <= 0.95:
            break
        left = np.delete(left, groups[int(np.argmax(gaps))])
        room -= len(groups[int(np.argmax(gaps))])
    return case.average(left)


def crfl(case: Case) -> np.ndarray:
    """Averages, clips the model to the norm that round 1 allows, and adds noise."""
    start = case.updates.start.astype(np.float64)
    moved = start + case.rows.mean(axis=0)
    limit = max(2.0, float(np.linalg.norm(start))) + 0.1 * case.updates.round
    noise = 0.01 * case.generator("crfl").standard_normal(len(moved))
    return moved * min(1, limit / np.linalg.norm(moved)) + noise - start


def deepsight(case: Case) -> np.ndarray:
    """Clips and averages the clients of clusters in which less than a third train for few classes.

    Needs a server with a network.
    """
    from sklearn.cluster import HDBSCAN

    layout, n = case.updates.layout, len(case.rows)
    bias = case.rows[:, layout.final_bias].astype(np.float64)
    kernel = case.rows[:, layout[f"{layout.final_layer}/kernel"]].astype(np.float64)
    kernel = kernel.reshape(n, -1, bias.shape[1])
    energies = (np.abs(bias) + np.abs(kernel).sum(axis=1)) ** 2
    energies /= energies.sum(axis=1, keepdims=True)
    relative = energies / energies.max(axis=1, keepdims=True)
    counts = (relative > max(0.01, 1 / bias.shape[1])).sum(axis=1)
    suspects = counts <= np.median(counts) / 2
    near = HDBSCAN(min_samples=4, copy=True)
    angles = HDBSCAN(min_samples=4, copy=True, metric="cosine")
    last = HDBSCAN(min_samples=4, copy=True, metric="precomputed", allow_single_cluster=True)
    by_output = [_apart(near.fit_predict(each)) for each in _division_differences(case)]
    by_angle, by_energy = _apart(angles.fit_predict(bias)), _apart(near.fit_predict(energies))
    merged = np.mean([by_angle, by_energy, np.mean(by_output, axis=0)], axis=0)
    same = ~_apart(last.fit_predict(merged))
    kept = (same & suspects).sum(axis=1) / same.sum(axis=1) < 1 / 3
    return _clipped(case.rows)[kept].mean(axis=0)


def dnc(case: Case) -> np.ndarray:
    """Leaves out the f rows with the longest projection on the first singular vector."""
    n, d = case.rows.shape
    columns = case.generator("dnc").choice(d, min(10_000, d), replace=False, shuffle=False)
    centered = case.rows[:, columns] - case.rows[:, columns].mean(axis=0)
    direction = np.linalg.svd(centered, full_matrices=False)[2][0]
    scores = (centered @ direction) ** 2
    return case.average(np.argsort(scores)[: n - case.malicious])


def faa_dl(case: Case) -> np.ndarray:
    """Leaves out the outliers of scikit-learn's one-class SVM, solved as precisely as in tffl."""
    from sklearn.svm import OneClassSVM

    machine = OneClassSVM(nu=0.5, tol=1e-9).fit(case.rows)
    return case.average(machine.decision_function(case.rows) >= -1e-6)


def flame(case: Case) -> np.ndarray:
    """Clusters by angles with HDBSCAN, clips to the median norm, averages and adds noise."""
    from sklearn.cluster import HDBSCAN

    n, d = case.rows.shape
    clustering = HDBSCAN(
        min_cluster_size=n // 2 + 1,
        min_samples=1,
        metric="cosine",
        allow_single_cluster=True,
        copy=True,
    )
    inside = clustering.fit_predict(case.rows) >= 0
    bound = np.median(np.linalg.norm(case.rows, axis=1))
    noise = case.generator("flame").standard_normal(d)
    return _clipped(case.rows)[inside].mean(axis=0) + 0.001 * bound * noise


def fldetector(case: Case) -> np.ndarray:
    """Leaves out clients whose update is far from its L-BFGS prediction."""
    state, n = case.state, len(case.rows)
    step = case.updates.start - state["start"]
    predicted = state["expected"] - _hessian_product(state["steps"], state["turns"], step)
    errors = np.linalg.norm(predicted - case.rows, axis=1)
    distances = np.column_stack([errors / errors.mean(), state["distances"][:, :-1]])
    scores = np.nanmean(distances, axis=1)
    labels, one, two = _two_means((scores - scores.min()) / np.ptp(scores))
    draws = case.generator("fldetector").random((10, n))
    ones, twos = np.array([_two_means(draw)[1:] for draw in draws]).T
    if one - two <= ones.mean() - twos.mean() + np.sqrt(1 + 1 / 10) * twos.std():
        return none(case)
    higher = scores[labels == 1].mean() > scores[labels == 0].mean()
    return case.average(labels != int(higher))


def fltrust(case: Case) -> np.ndarray:
    """Weights updates by their cosine to the root update, and rescales them to its length."""
    assert case.server.root is not None
    root = case.server.root.train(case.updates.start, case.updates.round)
    norms, length = np.linalg.norm(case.rows, axis=1), np.linalg.norm(root)
    trust = np.maximum(case.rows @ root / (norms * length), 0)
    return (trust * length / norms) @ case.rows / trust.sum()


def foolsgold(case: Case) -> np.ndarray:
    """Reduces the weight of clients whose histories of the final layer are similar."""
    from sklearn.metrics.pairwise import cosine_similarity

    layout, n = case.updates.layout, len(case.rows)
    final = np.repeat(
        [entry.layer == layout.final_layer for entry in layout.entries],
        [entry.size for entry in layout.entries],
    )
    cosines = cosine_similarity(case.state["history"] + case.rows[:, final]) - np.eye(n)
    nearest = cosines.max(axis=1)
    for i in range(n):
        for j in range(n):
            if nearest[i] < nearest[j]:
                cosines[i, j] *= nearest[i] / nearest[j]
    distinct = 1 - np.clip(cosines.max(axis=1), 0, 1)
    distinct /= distinct.max()
    with np.errstate(divide="ignore"):
        weights = np.clip(np.log(distinct / (1 - distinct)) + 0.5, 0, 1)
    return weights @ case.rows / weights.sum()


def freqfed(case: Case) -> np.ndarray:
    """Clusters by angles of the low frequencies of the models, and averages the majority."""
    from scipy.fft import dctn
    from sklearn.cluster import HDBSCAN

    n, d = case.rows.shape
    side = int(np.ceil(np.sqrt(d)))
    squares = np.zeros((n, side * side))
    squares[:, :d] = case.updates.start + case.rows
    spectra = dctn(squares.reshape(n, side, side), axes=(1, 2), norm="ortho")
    half = side // 2
    low = np.add.outer(np.arange(half), np.arange(half)) <= half
    clustering = HDBSCAN(
        min_cluster_size=n // 2 + 1,
        min_samples=1,
        metric="cosine",
        allow_single_cluster=True,
        copy=True,
    )
    return case.average(clustering.fit_predict(spectra[:, :half, :half][:, low]) >= 0)


def geometric_median(case: Case) -> np.ndarray:
    """Iterates Weiszfeld's step until the relative change is at most a millionth."""
    center = none(case)
    while True:
        distances = np.linalg.norm(case.rows - center, axis=1)
        moved = _average(case.rows, case.updates.sample_counts / np.maximum(distances, 1e-6))
        if np.linalg.norm(moved - center) <= 1e-6 * np.linalg.norm(moved):
            return moved
        center = moved


def krum(case: Case) -> np.ndarray:
    """Returns the row with the lowest score."""
    scores = _krum_scores(_squared_distances(case.rows), case.malicious)
    return case.rows[np.argmin(scores)]


def lasa(case: Case) -> np.ndarray:
    """Averages variable by variable over those of usual norm and balance of signs."""
    rows, entries = _clipped(case.rows).astype(np.float64), case.updates.layout.entries
    kernels = np.repeat([len(entry.shape) > 1 for entry in entries], [e.size for e in entries])
    count = int(kernels.sum() * 0.7)
    cutoff = np.sort(np.abs(case.rows[:, kernels]), axis=1)[:, -count, None]
    rows[:, kernels] *= np.abs(case.rows[:, kernels]) > cutoff
    ends = np.cumsum([entry.size for entry in entries])[:-1]
    return np.concatenate([_usual_mean(part) for part in np.split(rows, ends, axis=1)])


def lfighter(case: Case) -> np.ndarray:
    """Splits what changes at two output neurons in two, and averages the looser or larger part."""
    from sklearn.cluster import KMeans
    from sklearn.metrics.pairwise import cosine_similarity

    layout, n = case.updates.layout, len(case.rows)
    kernel, bias = (case.rows[:, layout[f"{layout.final_layer}/{x}"]] for x in ("kernel", "bias"))
    kernel = kernel.reshape(n, -1, bias.shape[1])
    magnitudes = np.linalg.norm(kernel, axis=1).sum(axis=0) + np.abs(bias).sum(axis=0)
    features = kernel[:, :, np.argsort(magnitudes)[-2:]].reshape(n, -1)
    labels = KMeans(2, n_init=10, random_state=0).fit(features).labels_
    scores = []
    for label in (0, 1):
        part = features[labels == label]
        lowest = (cosine_similarity(part) - np.eye(len(part))).min(axis=1)
        scores.append(len(part) / n * (1 - lowest.mean()))
    return case.rows[labels == np.argmax(scores)].mean(axis=0)


def median(case: Case) -> np.ndarray:
    """Returns the median of each column."""
    return np.median(case.rows, axis=0)


def mud_hog(case: Case) -> np.ndarray:
    """Leaves out the noise of the last three updates, and the minority of all updates so far."""
    from sklearn.cluster import DBSCAN, KMeans

    short = (case.rows + case.state["recent"].sum(axis=1)) / 3
    suspects = short @ np.median(short, axis=0) < 0
    rest = np.flatnonzero(~suspects)
    labels = DBSCAN(eps=0.5, min_samples=5).fit_predict(short[rest])
    usual = labels == np.bincount(labels + 1).argmax() - 1
    distances = np.linalg.norm(short[rest] - np.median(short[rest][usual], axis=0), axis=1)
    ranked = np.sort(distances[~usual])
    gap = np.diff(ranked).argmax() if len(ranked) > 1 else 0
    middle = ranked[gap : gap + 2].mean() if len(ranked) > 1 else 0
    noise = rest[~usual & (labels == -1) & (distances > middle)]
    suspects[noise] = True
    rest = np.flatnonzero(~suspects)
    long = case.state["total"] + case.rows
    labels = KMeans(2, n_init=10, random_state=0).fit(long[rest]).labels_
    minority = rest[labels == (2 * labels.sum() < len(rest))]
    return np.delete(case.rows, [*noise, *minority], axis=0).mean(axis=0)


def multi_krum(case: Case) -> np.ndarray:
    """Averages the n − f rows with the lowest scores."""
    scores = _krum_scores(_squared_distances(case.rows), case.malicious)
    return case.average(np.argsort(scores)[: len(case.rows) - case.malicious])


def nnm(case: Case) -> np.ndarray:
    """Replaces each row by the mean of its n − f nearest rows, and averages."""
    distances, kept = _squared_distances(case.rows), len(case.rows) - case.malicious
    mixed = [case.rows[np.argsort(row)[:kept]].mean(axis=0) for row in distances]
    return _average(np.array(mixed), case.updates.sample_counts)


def norm_clipping(case: Case) -> np.ndarray:
    """Averages rows clipped to their median norm."""
    return _average(_clipped(case.rows), case.updates.sample_counts)


def rlr(case: Case) -> np.ndarray:
    """Turns the mean around in columns whose signs lean to one side by less than 0.4·n votes."""
    votes = np.abs(np.sign(case.rows).sum(axis=0))
    return np.where(votes < 0.4 * len(case.rows), -1, 1) * none(case)


def signguard(case: Case) -> np.ndarray:
    """Averages clipped rows that have a typical norm and are in the largest cluster by signs."""
    from sklearn.cluster import MeanShift, estimate_bandwidth

    d = case.rows.shape[1]
    norms = np.linalg.norm(case.rows, axis=1)
    usual = (0.1 * np.median(norms) <= norms) & (norms <= 3 * np.median(norms))
    columns = case.generator("signguard").choice(d, max(1, round(0.1 * d)), replace=False)
    signs = np.sign(case.rows[:, columns])
    features = np.column_stack([(signs == sign).mean(axis=1) for sign in (1, 0, -1)])
    width = estimate_bandwidth(features, quantile=0.5)
    labels = MeanShift(bandwidth=width).fit_predict(features)
    similar = labels == np.bincount(labels).argmax()
    return _clipped(case.rows)[usual & similar].mean(axis=0)


def trimmed_mean(case: Case) -> np.ndarray:
    """Averages each column without its f largest and f smallest values."""
    f = case.malicious
    return np.sort(case.rows, axis=0)[f : len(case.rows) - f].mean(axis=0)


NAIVE: Mapping[str, Callable[[Case], np.ndarray]] = {
    "none": none,
    "alignins": alignins,
    "auror": auror,
    "bias-anomaly": bias_anomaly,
    "bucketing": bucketing,
    "bulyan": bulyan,
    "centered-clipping": centered_clipping,
    "clipped-mean": clipped_mean,
    "coalition": coalition,
    "crfl": crfl,
    "deepsight": deepsight,
    "dnc": dnc,
    "faa-dl": faa_dl,
    "flame": flame,
    "fldetector": fldetector,
    "fltrust": fltrust,
    "foolsgold": foolsgold,
    "freqfed": freqfed,
    "geometric-median": geometric_median,
    "krum": krum,
    "lasa": lasa,
    "lfighter": lfighter,
    "median": median,
    "mud-hog": mud_hog,
    "multi-krum": multi_krum,
    "nnm": nnm,
    "norm-clipping": norm_clipping,
    "rlr": rlr,
    "signguard": signguard,
    "trimmed-mean": trimmed_mean,
}
"""Name of a defense → its naive version, which returns the aggregate `[d]` of a case."""


def _division_differences(case: Case) -> list[np.ndarray]:
    """Returns the mean ratios of clients' to joint probabilities for three draws of noise."""
    from scipy.special import softmax

    from tffl.explain.maps import Probes

    model, explainer = case.server.model, case.server.explainer
    assert model is not None and explainer is not None
    start, layout = case.updates.start, case.updates.layout
    still, result = Updates.of_rows(np.zeros((1, len(start))), layout=layout, start=start), []
    for draw in range(3):
        generator = seeds.generator(case.server.seed, "deepsight", draw)
        images = generator.integers(0, 256, (250, *model.input_shape[1:]), dtype=np.uint8)
        probes = Probes(images, np.zeros(len(images), np.int32))
        local, joint = (
            softmax(explainer.logits(each, probes).astype(np.float64), axis=-1)
            for each in (case.updates, still)
        )
        result.append((local / (joint + 1e-6)).mean(axis=1))
    return result


def _apart(labels: np.ndarray) -> np.ndarray:
    """Returns bool `[n, n]`: which pairs are in two clusters, or one of them is noise."""
    together = (labels[:, None] == labels) & (labels >= 0)
    return ~(together | np.eye(len(labels), dtype=bool))


def _usual_mean(part: np.ndarray) -> np.ndarray:
    """Averages one variable over rows within a standard deviation of both medians, or all."""
    signs = np.sign(part)
    balances = signs.sum(axis=1) / np.maximum(np.abs(signs).sum(axis=1), 1)
    kept = _near_median(np.linalg.norm(part, axis=1)) & _near_median(balances)
    return part[kept if kept.any() else slice(None)].mean(axis=0)


def _near_median(values: np.ndarray) -> np.ndarray:
    """Returns bool `[n]`: which values are within a standard deviation of the median."""
    near: np.ndarray = np.abs(values - np.median(values)) <= values.std() * (1 + 1e-6)
    return near


def _average(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.average(rows, axis=0, weights=weights).astype(rows.dtype)


def _clipped(rows: np.ndarray) -> np.ndarray:
    """Returns the rows, clipped to their median norm."""
    norms = np.linalg.norm(rows, axis=1)
    return rows * np.minimum(1, np.median(norms) / norms)[:, None]


def _proposed(cosines: np.ndarray, room: int) -> list[list[int]]:
    """Returns the ends of the three leading eigenvectors, and the branches of average linkage."""
    from scipy.cluster.hierarchy import linkage, to_tree
    from scipy.spatial.distance import squareform

    n, groups = len(cosines), []
    for vector in np.linalg.eigh(cosines)[1].T[-3:]:
        order = np.argsort(vector, kind="stable").tolist()
        groups += [end for k in range(2, n // 2 + 1) for end in (order[:k], order[-k:])]
    apart = np.clip(np.diag(cosines).mean() - cosines, 0, None)
    np.fill_diagonal(apart, 0)
    _, branches = to_tree(linkage(squareform(apart, checks=False), "average"), rd=True)
    groups += [branch.pre_order() for branch in branches]
    return [group for group in groups if 2 <= len(group) <= room]


def _cohesion(cosines: np.ndarray, group: list[int]) -> float:
    others = [client for client in range(len(cosines)) if client not in group]
    within = [cosines[i, j] for i in group for j in group if i != j]
    return float(np.mean(within) - np.mean([cosines[i, j] for i in group for j in others]))


def _squared_distances(rows: np.ndarray) -> np.ndarray:
    """Returns the squared distances of all pairs, float64 `[n, n]`, computed pair by pair."""
    n = len(rows)
    distances = np.zeros((n, n))
    for i in range(n):
        for j in range(i + 1, n):
            distances[i, j] = distances[j, i] = np.sum((rows[i] - rows[j]) ** 2, dtype=np.float64)
    return distances


def _krum_scores(distances: np.ndarray, malicious: int) -> np.ndarray:
    neighbors = max(len(distances) - malicious - 2, 1)
    return np.sort(distances, axis=1)[:, 1 : neighbors + 1].sum(axis=1)


def _hessian_product(steps: np.ndarray, turns: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Returns Ĥ·v by the compact form of L-BFGS.

    Args:
      steps: Changes of the weights, `[k, d]`, oldest first.
      turns: Changes of the gradient, `[k, d]`, oldest first.
      vector: v, `[d]`.
    """
    products = steps @ turns.T
    sigma = products[-1, -1] / (steps[-1] @ steps[-1])
    lower, diagonal = np.tril(products, -1), np.diag(np.diag(products))
    middle = np.block([[sigma * steps @ steps.T, lower], [lower.T, -diagonal]])
    wings = np.concatenate([sigma * steps, turns])
    return sigma * vector - np.linalg.solve(middle, wings @ vector) @ wings


def _two_means(values: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Returns the cluster of each value, 0 or 1, and the log errors of one and of two clusters."""
    from sklearn.cluster import KMeans

    one, two = (KMeans(k, n_init=10, random_state=0).fit(values[:, None]) for k in (1, 2))
    return two.labels_, float(np.log(one.inertia_)), float(np.log(two.inertia_))
