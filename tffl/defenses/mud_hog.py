"""MUD-HoG: three kinds of attackers, by the short and the long history of what clients send.

    h_i = mean of client i's last K updates,  H_i = sum of all its updates
    1 sign-flipping   cos(h_i, median_j h_j) < 0,                          j not malicious so far
    2 untargeted      of h_i but for 1: noise of DBSCAN(ε, m), and ‖h_i − c‖ > gap_j ‖h_j − c‖,
                      with c the median of its largest cluster, j outside of that
    3 targeted        of H_i but for 1 and 2: the smaller cluster of 2-means
    4 unreliable      of h_i but for 1 and the malicious: cos(h_i, median_j h_j) < gap_j (of these)
    Δ = mean of Δ_i over those who are not malicious, and neither 2 nor 3 in this round

where gap is the middle of the largest gap between sorted values. Malicious is who is suspected (1,
2 or 3) in two rounds in a row, of 3 alone in four, until two rounds in a row without suspicion.

Long-Short History of Gradients is All You Need: Detecting Malicious and Unreliable Clients in
Federated Learning
    Ashish Gupta, Tie Luo, Mao V. Ngo, Sajal K. Das. ESORICS 2022.

This is the authors' code (LabSAINT/MUD-HoG_Federated_Learning, `server.py` and `clients.py` at
c9ccd75), not the paper's text, which was not at hand. What that code does, and a reader may not
expect:

- Step 3 leaves somebody out of every round from the fourth on, attacked or not: two clusters there
  always are. In a trial on digits (cnn, 10 clients, 10 rounds, one seed) 3 sign-flippers were out
  from round 5 on, and so were 3 of the 7 others.
- ε is a distance between updates, so that it has to suit model, learning rate and data: 0.5 for
  MNIST, 1.3 for Fashion-MNIST, 18 for CIFAR-10 in their scripts. With a smaller one all clients are
  noise, and with a larger one none: either way step 2 suspects nobody. Noise counts as a cluster
  when the largest one is taken.
- A sign-flipper is averaged in the first round in which it is seen.
- Who is unreliable is averaged like everybody else, where the abstract speaks of a different
  treatment. It matters in one case: an untargeted suspect counted as unreliable often enough is
  released after one round without suspicion instead of two.

Where tffl departs from it:

- Theirs has all clients in every round. In tffl histories, medians and clusters are those of the
  round's clients, and a client's rounds are those in which it takes part.
- Histories are of trainable weights; theirs include BatchNorm statistics.
- 2-means starts as in `parts.two_clusters`, theirs at random (seed 0). Of two clusters of equal
  size none is the smaller and nobody is suspected; there, k-means numbers them by chance, and the
  second is.
- A history of zeros is at a right angle to all, where theirs divides 0 by 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from tffl.core.errors import require
from tffl.core.geometry import (
    centered_products,
    cosines_with,
    squared_distances,
    squared_distances_to,
)
from tffl.core.layout import WeightLayout
from tffl.core.updates import Updates
from tffl.core.verdict import NOT_FINITE, Verdict
from tffl.defenses.base import Defense, State
from tffl.defenses.parts.order import medians
from tffl.defenses.parts.scope import Layers, within
from tffl.defenses.parts.two_clusters import two_clusters
from tffl.defenses.server import Server

MOST_BYTES = 2 << 30
"""Largest memory of histories: it is copied in every round and is part of every checkpoint."""

KINDS = (
    "",
    "sign-flipping: its last updates point against the median",
    "untargeted: its last updates are noise, far from the largest cluster",
    "targeted: in the smaller of two clusters of all updates so far",
)
"""Why a client is suspected, by the number of the step."""

DIGITS = 12
"""Cosines are rounded to so many, so that the last bit does not make an angle obtuse."""


def middle_of_largest_gap(values: np.ndarray) -> float:
    """Returns the middle of the largest gap between sorted values; 0 for fewer than two.

    >>> middle_of_largest_gap(np.array([7.0, 1.0, 2.0]))
    4.5
    """
    ranked = np.sort(values)
    if len(ranked) < 2:
        return 0.0
    widest = np.diff(ranked).argmax()
    return float(ranked[widest] + ranked[widest + 1]) / 2


def median_cosines(rows: Updates, trusted: np.ndarray) -> np.ndarray:
    """Returns the cosine of each row to the median of the trusted ones, float64 `[n]`.

    Args:
      rows: Finite.
      trusted: bool `[n]`; if none is, all cosines are 0.
    """
    if not trusted.any():
        return np.zeros(len(rows))
    return np.round(cosines_with(rows, medians(rows.select(trusted)))[0], DIGITS)


def noise_senders(rows: Updates, radius: float, neighbors: int) -> np.ndarray:
    """Returns bool `[n]`: DBSCAN's noise that is far from the median of its largest cluster.

    Args:
      rows: Finite, n >= 1.
      radius: ε.
      neighbors: Points within ε, itself included, that make a point part of a cluster's core.
    """
    from sklearn.cluster import DBSCAN

    clustering = DBSCAN(eps=radius, min_samples=neighbors, metric="precomputed")
    labels = clustering.fit_predict(np.sqrt(squared_distances(rows)))
    found, first, sizes = np.unique(labels, return_index=True, return_counts=True)
    usual = labels == found[np.lexsort((first, -sizes))[0]]  # of equal ones that of the first row
    distances = np.sqrt(squared_distances_to(rows, medians(rows.select(usual))))
    far = distances > middle_of_largest_gap(distances[~usual])
    return ~usual & (labels == -1) & far


def minority(rows: Updates) -> np.ndarray:
    """Returns bool `[n]`: the smaller of two clusters; nobody if they are equal, or only one.

    Args:
      rows: Finite, n >= 1.

    >>> minority(Updates.of_rows(np.array([[0.0], [8.0], [1.0], [9.0], [9.5]])))
    array([ True, False,  True, False, False])
    """
    other = two_clusters(centered_products(rows))
    if 2 * other.sum() == len(rows):
        return np.zeros(len(rows), dtype=bool)
    return other if 2 * other.sum() < len(rows) else ~other


@dataclass(frozen=True)
class Suspects:
    """Whom one round gives away, each bool `[n]`."""

    flipping: np.ndarray
    untargeted: np.ndarray
    targeted: np.ndarray

    @property
    def kinds(self) -> np.ndarray:
        """The step that suspects each, int64 `[n]`; 0 for none, and no client is in two."""
        return self.flipping + 2 * self.untargeted + 3 * self.targeted


@dataclass(frozen=True)
class MudHog(Defense):
    """Leaves out clients whose histories give them away in several rounds.

    Flagged are a round's suspects (1, 2 and 3), and rejected those who are left out. The score is
    one minus the cosine of step 1: it ranks clients, and there is no threshold. Weights are equal
    shares, whatever sample counts claim. A row with NaN or infinity is rejected, and no part of its
    client's history.

    It remembers 4 · window · clients · d bytes, 2 GiB at most: `window` − 1 last updates of each
    client, and their sum.

    Attributes:
      radius: ε of DBSCAN, a distance between updates; no value suits all models. The authors'
        scripts have 0.5 for MNIST, 1.3 for Fashion-MNIST and 18 for CIFAR-10.
      neighbors: m, DBSCAN's least number of points within ε that make a cluster's core.
      window: K, how many updates the short history is of.
      start: The first round that suspects anyone.
      delay: For how many rounds in a row a client must be suspected of step 1 or 2 to be malicious;
        of step 3 for twice as many.
      layers: What histories are made of: `all` layers, or the `final` one.

    >>> rows = np.array([[1.0, 2.0], [1.1, 1.9], [0.9, 2.1], [1.2, 2.0], [-9.0, 9.0]])
    >>> MudHog(start=1).judge_rows(rows).accepted.tolist()
    [True, True, True, True, False]
    """

    radius: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.5
    neighbors: Annotated[int, Field(ge=1)] = 5
    window: Annotated[int, Field(ge=2)] = 3
    start: Annotated[int, Field(ge=1)] = 4
    delay: Annotated[int, Field(ge=1)] = 2
    layers: Layers = "all"

    reference: ClassVar[str] = (
        "Gupta et al., Long-Short History of Gradients is All You Need: Detecting Malicious and "
        "Unreliable Clients in Federated Learning, ESORICS 2022"
    )

    @property
    def tracks_clients(self) -> bool:
        """True: it remembers histories and suspicions."""
        return True

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Raises `UsageError` for too few clients to cluster, or too many to remember."""
        require(
            participants >= 3,
            f"mud-hog needs at least 3 participants a round, not {participants}: of two clusters "
            "it leaves out the smaller one",
        )
        self._check_size(participants, layout)

    def init(self, server: Server) -> State:
        """Returns empty histories, and no suspicion of anyone."""
        self._check_size(server.clients, server.layout)
        clients, width = server.clients, self._width(server.layout)
        return {
            "recent": np.zeros((clients, self.window - 1, width), dtype=np.float32),
            "total": np.zeros((clients, width), dtype=np.float32),
            "rounds": np.zeros(clients, dtype=np.int64),
            "suspected": np.zeros(clients, dtype=np.int64),
            "unreliable": np.zeros(clients, dtype=np.int64),
            "malicious": np.zeros(clients, dtype=bool),
            "flipping": np.zeros(clients, dtype=bool),
            "untargeted": np.zeros(clients, dtype=bool),
        }

    def judge(self, updates: Updates, server: Server, state: State) -> tuple[Verdict, State]:
        """Adds the round to the histories, suspects, convicts, and averages the others."""
        finite, memory = updates.finite(), state
        scores, accepted = np.full(len(updates), np.inf), finite.copy()
        kinds = np.zeros(len(updates), dtype=np.int64)
        if finite.any():
            kept = updates.select(finite)
            short, long, histories = self._remember(within(kept, self.layers), state)
            memory = {**state, **histories}
            malicious = state["malicious"][kept.client_ids]
            scores[finite] = 1 - median_cosines(short, ~malicious)
            if updates.round >= self.start:
                suspects = self._suspects(short, long, scores[finite] > 1, state)
                memory |= self._convict(short, suspects, memory)
                kinds[finite] = suspects.kinds
                accepted[finite] = ~memory["malicious"][kept.client_ids] & (suspects.kinds < 2)
        weights = accepted / max(accepted.sum(), 1)
        verdict = Verdict(
            flagged=~finite | (kinds > 0),
            convicted=~accepted,
            accepted=accepted,
            weights=weights,
            scores=scores,
            threshold=math.nan,
            aggregate=updates.mean(weights),
            reasons=tuple(map(_reason, finite, kinds.tolist(), accepted)),
        )
        return verdict, memory

    def _remember(self, updates: Updates, state: State) -> tuple[Updates, Updates, State]:
        """Returns the short and long histories of a round's clients, and the state's histories."""
        ids, most = updates.client_ids, np.finfo(np.float32).max
        recent, total, rounds = (state[name].copy() for name in ("recent", "total", "rounds"))
        rounds[ids] += 1
        counts = np.minimum(rounds[ids], self.window)[:, None]
        short = np.empty((len(ids), updates.layout.size), dtype=np.float32)
        for columns in updates.columns():
            sent, past = updates.block(columns), recent[ids, :, columns]
            short[:, columns] = (sent + past.sum(axis=1, dtype=np.float64)) / counts
            long = sent + total[ids, columns].astype(np.float64)
            total[ids, columns] = np.clip(long, -most, most)
            recent[ids, 1:, columns] = past[:, :-1]
            recent[ids, 0, columns] = sent
        plain = replace(updates, matrix=short, rows=None, mixing=None, overrides={})
        histories = {"recent": recent, "total": total, "rounds": rounds}
        return plain, replace(plain, matrix=total, rows=ids), histories

    def _suspects(
        self, short: Updates, long: Updates, flipping: np.ndarray, state: State
    ) -> Suspects:
        """Returns whom steps 2 and 3 give away, beside those of step 1."""
        untargeted, targeted = np.zeros((2, len(short)), dtype=bool)
        others = ~(flipping | state["flipping"][short.client_ids])
        if others.any():
            rows = short.select(others)
            untargeted[others] = noise_senders(rows, self.radius, self.neighbors)
        others &= ~(untargeted | state["untargeted"][short.client_ids])
        if others.any():
            targeted[others] = minority(long.select(others))
        return Suspects(flipping, untargeted, targeted)

    def _convict(self, short: Updates, suspects: Suspects, state: State) -> State:
        """Returns what the state says of clients after a round."""
        ids, suspected = short.client_ids, suspects.kinds > 0
        names = ("suspected", "unreliable", "malicious", "flipping", "untargeted")
        streak, unreliable, malicious, flipping, untargeted = (state[name][ids] for name in names)
        counted = ~(suspects.flipping | flipping)  # by step 4

        cleared = ~suspected & (streak == 0)
        forgiven = ~suspected & (streak > 0) & untargeted
        unreliable[forgiven] += 1
        forgiven &= unreliable >= self.delay
        streak = np.where(suspected, streak + 1, 0)
        often = streak >= self.delay
        flipping = flipping & ~cleared | suspects.flipping & often
        untargeted = untargeted & ~(cleared | forgiven) | suspects.untargeted & often
        malicious = (
            malicious & ~(cleared | forgiven)
            | (suspects.flipping | suspects.untargeted) & often
            | suspects.targeted & (streak >= 2 * self.delay)
        )

        counted &= ~malicious
        deviating = np.zeros(len(ids), dtype=bool)
        if counted.any():
            rows = short.select(counted)
            cosines = median_cosines(rows, np.ones(len(rows), dtype=bool))
            deviating[counted] = cosines < middle_of_largest_gap(cosines)
        unreliable = np.maximum(unreliable + np.where(deviating, 1, -1), 0)

        result = {name: state[name].copy() for name in names}
        for name, values in zip(
            names, (streak, unreliable, malicious, flipping, untargeted), strict=True
        ):
            result[name][ids] = values
        return result

    def _width(self, layout: WeightLayout) -> int:
        if self.layers == "all":
            return layout.size
        return sum(entry.size for entry in layout.entries if entry.layer == layout.final_layer)

    def _check_size(self, clients: int, layout: WeightLayout) -> None:
        size = 4 * self.window * clients * self._width(layout)
        require(
            size <= MOST_BYTES,
            f"mud-hog would remember {size / 2**30:.1f} GiB of {clients} clients' updates, more "
            f"than {MOST_BYTES / 2**30:g} GiB: use defense.layers=final, or a smaller model",
        )


def _reason(finite: bool, kind: int, accepted: bool) -> str:
    if not finite:
        return NOT_FINITE
    return KINDS[kind] or ("" if accepted else "suspected in earlier rounds")
