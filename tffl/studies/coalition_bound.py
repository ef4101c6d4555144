"""How much harm colluders can do whom `coalition` does not convict: its limits, as a bound.

Two bounds, for one round of n clients of equal weight without memory: on the server's loss to first
order, and on the mean of the updates. `results/coalition/BOUND.md` derives both;
`coalition_bound_page.py` writes it.

    extra loss   = server's learning rate · f/n · gap
    mean − mean of the others = f/n · (mean of the colluders − mean of the others)

>>> rng = np.random.default_rng(0)
>>> slack = slack_of(rng.normal(size=(15, 10)) / 10**0.5, colluders=5)
>>> bool(0 < group_gap(slack) < single_gap(slack) < traded_gap(slack))
True
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, sqrt

import numpy as np

from tffl.core.errors import require
from tffl.core.thresholds import NORMAL
from tffl.defenses.coalition import CLIP, Coalition
from tffl.defenses.parts.coalitions import ALONE, CLOSE, CLOSED, STUDENT, WELCH, widening
from tffl.defenses.shield import Shield
from tffl.defenses.update_consensus import DISTANCE_FLOOR


@dataclass(frozen=True)
class Slack:
    """What f colluders can make of the detector's units, whatever they send.

    All in the unit of the honest costs. A cost is the mean over the parts of the classes.

    Attributes:
      others: r, the honest clients.
      colluders: f < r.
      shift: m = max median of all n − mean of the others.
      spread: σ = max 1.4826 · MAD of all n.
      lean: ρ = mean over the parts of max |median of all n − mean of the others|.
      squares: Σ (cost − mean)² over the others.
    """

    others: int
    colluders: int
    shift: float
    spread: float
    lean: float
    squares: float

    @property
    def clients(self) -> int:
        """The number n of all."""
        return self.others + self.colluders


def median_range(values: np.ndarray, colluders: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the least and the greatest median when colluders add any values, `[...]` each.

    Args:
      values: The honest ones, float64 `[r, ...]`.
      colluders: f < r.

    >>> median_range(np.array([0.0, 1.0, 2.0, 3.0]), 1)
    (np.float64(1.0), np.float64(2.0))
    """
    added = np.full((colluders, *values.shape[1:]), inf)
    low, high = (np.concatenate([values, sign * added]) for sign in (-1, 1))
    return np.median(low, axis=0), np.median(high, axis=0)


def greatest_spread(values: np.ndarray, colluders: int) -> float:
    """Returns a bound on 1.4826 · MAD when colluders add any values.

    max_v median( |x_j − v| of the honest, f times ∞ ) over all v that can be the median. That is
    piecewise linear in v, and bends only at the x_j and halfway between two of them.

    Args:
      values: The honest ones, float64 `[r]`.
      colluders: f < r.

    >>> round(greatest_spread(np.array([-1.0, 0.0, 1.0]), 0) / 1.4826, 6)
    1.0
    """
    low, high = median_range(values, colluders)
    halfway = ((values[:, None] + values) / 2).ravel()
    inside = np.unique(halfway[(halfway >= low) & (halfway <= high)])
    centers = np.concatenate([[low, high], inside])
    distances = np.abs(values[:, None] - centers)
    return float(NORMAL * median_range(distances, colluders)[1].max())


def slack_of(honest: np.ndarray, colluders: int) -> Slack:
    """Returns what f colluders can make of these honest costs.

    Args:
      honest: What each honest client costs each part of the classes, ∇ℓ_c · Δ_i, in any unit,
        float64 `[r, parts]`. The bounds hold if the detector cuts none of them at 40 units.
      colluders: f, from 1 to r − 1.

    Raises:
      UsageError: As many colluders as others, or none.
    """
    others = len(honest)
    require(
        1 <= colluders < others,
        f"a bound needs 1 to {others - 1} colluders beside {others} honest clients, not "
        f"{colluders}: half of all clients determine the median",
    )
    total, means = honest.mean(axis=1), honest.mean(axis=0)
    lean = np.max([abs(end - means) for end in median_range(honest, colluders)], axis=0)
    return Slack(
        others=others,
        colluders=colluders,
        shift=float(median_range(total, colluders)[1] - total.mean()),
        spread=greatest_spread(total, colluders),
        lean=float(lean.mean()),
        squares=float(np.square(total - total.mean()).sum()),
    )


def normal_costs(others: int) -> np.ndarray:
    """Returns r costs of one part, as even as a standard normal sample gets, float64 `[r, 1]`."""
    from scipy.stats import norm

    return norm.ppf((np.arange(others) + 0.5) / others)[:, None]


def single_gap(slack: Slack, breadth: float = 1.0) -> float:
    """Bounds the gap by the test of single clients, of colluders of at least this breadth.

        breadth · z <= ALONE  ⟹  gap <= m + ALONE · σ / breadth

    Args:
      slack: See `slack_of`.
      breadth: Of every colluder who costs more than the average client, in (0, 1]; 1 if whoever
        harms lowers the loss of no part of the classes.
    """
    return slack.shift + ALONE * slack.spread / breadth


def traded_gap(slack: Slack, reach: float = CLIP) -> float:
    """Bounds the gap by the test of single clients, of colluders who lower the loss of some parts.

    For x <= 40:  gap <= ½ (m + √( m² + 4 · ALONE · σ (xσn/r + ρ) ))
    For x > 40, where the detector cuts costs, with that gap at 40:
                  gap + ½ (x − 40)(σ + (gap + ρ)/40)

    Args:
      slack: See `slack_of`.
      reach: x, how many units σ from the median a colluder's update can cost or save one part.
    """
    seen = min(reach, CLIP)
    m, sigma = slack.shift, slack.spread
    gross = seen * sigma * slack.clients / slack.others + slack.lean
    gap = min((m + sqrt(m * m + 4 * ALONE * sigma * gross)) / 2, seen * sigma + slack.lean)
    return gap + (reach - seen) * (sigma + (gap + slack.lean) / CLIP) / 2


def group_gap(slack: Slack, breadth: float = 1.0, cohesion: float = CLOSE) -> float:
    """Bounds the gap as `single_gap` does, if the search also proposes the colluders as a group.

        breadth · t · min(1, cohesion / CLOSE) <= limit · (1 + 1/f) · widening(n)

    with STUDENT and WELCH the limits of both t.

    Both t shrink when colluders differ in what they cost. They differ most, with none of them above
    U = `single_gap`, when all but one are there and that one makes up for it:

        Σ_S (cost − mean_S)² <= f (f − 1)(U − gap)²

    Args:
      slack: See `slack_of`.
      breadth: Of each colluder as above, and of the group.
      cohesion: Of the group, at least the option `coherence` of `coalition`.
    """
    limit, weight = single_gap(slack, breadth), min(1, cohesion / CLOSE)
    return _group_root(slack, limit, limit, lambda gap: breadth * weight)


def traded_group_gap(slack: Slack, cohesion: float = CLOSE) -> float:
    """Bounds the gap as `traded_gap` does at x = 40, if the search also proposes the group.

    The breadth of the group is at least gap / (40σ + ρ). No single colluder costs more than
    U = ½ (αg + m + √( (αg − m)² + 4 · ALONE · σ (40σ(n + f − 2) + rρ)/n )), with g the `traded_gap`
    and α = f/n.
    """
    alone, n, f = traded_gap(slack), slack.clients, slack.colluders
    m, sigma, reach = slack.shift, slack.spread, CLIP * slack.spread + slack.lean
    product = ALONE * sigma * (CLIP * sigma * (n + f - 2) + slack.others * slack.lean) / n
    average = f / n * alone
    highest = (average + m + sqrt((average - m) ** 2 + 4 * product)) / 2
    weight = min(1, cohesion / CLOSE)
    return _group_root(slack, alone, min(highest, reach), lambda gap: weight * min(1, gap / reach))


def _group_root(
    slack: Slack, largest: float, highest: float, weight: Callable[[float], float]
) -> float:
    """Returns the largest gap up to `largest` that both t allow, if no colluder costs more."""
    from scipy.optimize import brentq

    n, f, r = slack.clients, slack.colluders, slack.others
    if f < 2:
        return largest
    wide = (1 + 1 / f) * widening(n)

    def excess(gap: float) -> float:
        own = f * (f - 1) * max(highest - gap, 0) ** 2
        pooled = (own + slack.squares) / (n - 2) * (1 / f + 1 / r)
        apart = own / (f * (f - 1)) + slack.squares / (r * (r - 1))
        allowed = wide * min(STUDENT * sqrt(pooled), WELCH * sqrt(apart))
        return weight(gap) * gap - allowed

    return largest if excess(largest) <= 0 else float(brentq(excess, 0, largest))


def greatest_cohesion(cost: float) -> float:
    """Bounds the cohesion of an unconvicted group that is proposed, by its `cost`.

        cost · min(1, cohesion / CLOSE) <= 1  or  cohesion < coherence,  and  cohesion <= CLOSED

    Args:
      cost: breadth · t, relative to the limits; see `tffl.defenses.parts.coalitions.cost`.

    >>> greatest_cohesion(0.5), greatest_cohesion(1.4), greatest_cohesion(100)
    (0.95, 0.25, 0.1)
    """
    return CLOSED if cost <= 1 else max(CLOSE / cost, Coalition().coherence)


def greatest_distance(spread: float = 0.0) -> float:
    """Bounds the distance to the median update that `shield` lets pass, in median distances.

        z <= k  ⟹  distance <= 1 + k · max(0.3, spread),  k that of its part update-consensus

    Args:
      spread: 1.4826 · MAD of all distances, relative to their median.
    """
    k = float(Shield.usual["update-consensus"]["k"])
    return 1 + k * max(DISTANCE_FLOOR, spread)


def median_pull(others: int, colluders: int, samples: int = 4000) -> float:
    """Bounds |b| of `mean_gap`, about, if coordinates of honest updates are normal.

        |b| <= √( q² / (1 − 1/r + q²) ),   q² = E max |median of all n − mean of the others|²

    Args:
      others: r.
      colluders: f < r.
      samples: How many coordinates of honest clients to draw.
    """
    drawn = np.random.default_rng(0).normal(size=(others, samples))
    ends = np.abs(np.array(median_range(drawn, colluders)) - drawn.mean(axis=0))
    square = float(np.square(ends.max(axis=0)).mean())
    return sqrt(square / (1 - 1 / others + square))


def mean_gap(colluders: int, cohesion: float, pull: float, length: float = 1.0) -> float:
    """Bounds |mean of the colluders − mean of the others|, by the cohesion of the colluders.

    With a and b the means of the unit vectors of Δ_i − median, of colluders and of others:

        |a|² = 1/f + (1 − 1/f)(cohesion + a·b)
        |λa − b| is greatest where a is parallel to b, in the opposite direction or the same

    Args:
      colluders: f.
      cohesion: At most that; from 0 to 1.
      pull: |b|, from 0 to 1.
      length: λ, the colluders' distance to the median, in the others' distance; all colluders and
        all others have the same. If not, add the mean absolute differences to those lengths.

    Returns:
      In units of the others' distance.

    >>> round(mean_gap(4, cohesion=1.0, pull=0.0), 3), round(mean_gap(4, 0.0, 0.0), 3)
    (1.0, 0.5)
    """
    slope = 1 - 1 / colluders
    base = 1 / colluders + slope * cohesion

    def longest(side: int) -> float:
        half = side * slope * pull / 2
        return half + sqrt(half * half + base)

    return max(length * longest(-1) + pull, length * longest(1) - pull)
