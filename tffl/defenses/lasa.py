"""LASA: clip and sparsify updates, then choose anew for each variable whose to average.

    Δ_i ← Δ_i·min(1, M / ‖Δ_i‖),   M = median_j ‖Δ_j‖
    of all kernels of client i together, entries not above the ⌊(1 − s)·d'⌋-th largest become 0
    for each variable l:  a_i = ‖Δ_il‖,   b_i = Σ_j sgn(Δ_ilj) / Σ_j |sgn(Δ_ilj)|
                          z(x)_i = |x_i − median(x)| / std(x)
                          A_l = { i : z(a)_i <= λ_n and z(b)_i <= λ_s }, or all if empty
                          Δ_l = mean of Δ_il over A_l

Achieving Byzantine-Resilient Federated Learning via Layer-Adaptive Sparsified Model Aggregation
    Jiahao Xu, Zikai Zhang, Rui Hu. WACV 2025.

Layers are variables here as in the authors' code: a kernel and its bias are two. Kernels, variables
of two and more dimensions, are sparsified, others are not. Defaults are those of the code, s = 0.3
and λ_n = λ_s = 1. Such a radius leaves out about half of the honest clients in every variable, and
as in `alignins`, m of n attackers that agree are never farther than √(n / m) from the median. The
paper's sign statistic is ½·(1 + (1 − s)·b), which has the same z. What tffl takes instead:

- A z that equals the radius is kept; there it is left out.
- Where all clients have the same value, z is 0; in their code it is 0/0, which switches off both
  filters of the variable. So does a client there whose part of a variable is all 0: b_i is 0/0,
  and with it the median. Here b_i is 0, so that nobody can switch off a filter.
- The median norm of an even number of clients is the mean of the middle two; there, the lower one.
- BatchNorm statistics are averaged over all clients as they are; there, they are like others.

The mean is plain: sample counts do not matter. The rule has no verdict on clients; recorded is the
share of variables in which a client was left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from tffl.core.errors import require
from tffl.core.layout import WeightLayout
from tffl.core.thresholds import TOLERANCE
from tffl.core.updates import NARROW, Updates
from tffl.defenses.base import State
from tffl.defenses.parts.clipping import clip_factors
from tffl.defenses.parts.magnitudes import largest_magnitudes, median_distances
from tffl.defenses.parts.scope import by_variable
from tffl.defenses.robust_mean import Combined, RobustMean
from tffl.defenses.server import Server


def cutoffs(updates: Updates, sparsity: float) -> np.ndarray:
    """Returns the magnitude that entries of kernels must exceed, float32 `[n]`; −1 for no limit.

    Args:
      updates: Finite rows.
      sparsity: s; at most ⌊(1 − s)·d'⌋ − 1 of the d' entries of all kernels stay.

    >>> cutoffs(Updates.of_rows(np.array([[3.0, 5.0], [1.0, 2.0]])), 0.5)  # no kernel among them
    array([-1., -1.], dtype=float32)
    """
    entries = updates.layout.entries
    matrices = [_is_kernel(entry.shape, entry.trainable) for entry in entries]
    kernels = np.repeat(matrices, [entry.size for entry in entries])
    count = int(np.count_nonzero(kernels) * (1 - sparsity))
    if sparsity == 0 or not kernels.any():
        return np.full(len(updates), -1, dtype=np.float32)
    return largest_magnitudes(updates, kernels, max(count, 1))


def sparsified(part: np.ndarray, least: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Returns entries above the cutoffs times the factors, and 0 for others, float64 `[n, width]`.

    >>> sparsified(np.array([[3.0, -5.0]]), np.array([[3.0]]), np.array([[2.0]]))
    array([[  0., -10.]])
    """
    return np.where(np.abs(part) > least, part, 0).astype(np.float64) * factors


@dataclass(frozen=True)
class Lasa(RobustMean):
    """Averages, variable by variable, the clients of usual length and balance of signs.

    Attributes:
      sparsity: s from 0 to below 1, the share of kernel entries that are set to 0.
      norm_radius: λ_n > 0, how many standard deviations from the median a norm may be.
      sign_radius: λ_s > 0, the same for the balance of signs.

    >>> rows = np.array([[1.0, 1.0], [1.1, 1.0], [0.9, 1.0], [1.0, 0.9], [-1.0, -1.0]])
    >>> Lasa(norm_radius=9).judge_rows(rows).scores.tolist()
    [0.0, 0.0, 0.0, 0.0, 1.0]
    """

    sparsity: Annotated[float, Field(ge=0, lt=1)] = 0.3
    norm_radius: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    sign_radius: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    reference: ClassVar[str] = (
        "Xu, Zhang, Hu, Achieving Byzantine-Resilient Federated Learning via Layer-Adaptive "
        "Sparsified Model Aggregation, WACV 2025"
    )

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Raises `UsageError` for fewer than three clients."""
        require(
            participants >= 3,
            f"lasa needs at least 3 participants a round, not {participants}: two are equally far "
            "from their median",
        )

    def combine(self, updates: Updates, server: Server, state: State) -> tuple[Combined, State]:
        """Clips, sparsifies, and averages variable by variable."""
        n, norms = len(updates), updates.norms(trainable=True)
        shares = np.full(n, 1 / n)
        factors = clip_factors(norms, float(np.median(norms)))[:, None]
        least = cutoffs(updates, self.sparsity)[:, None]
        aggregate, left_out, variables = updates.mean(shares), np.zeros(n), 0
        for columns, part in by_variable(updates):
            entry = part.layout.entries[0]
            limit = least if _is_kernel(entry.shape, True) else np.full_like(least, -1)
            usual = self.usual(*_statistics(part, limit, factors))
            chosen = usual if usual.any() else np.ones(n, dtype=bool)
            aggregate[columns] = _mean(part.select(chosen), limit[chosen], factors[chosen])
            left_out += ~chosen
            variables += 1
        return Combined(aggregate, shares, left_out / variables), state

    def usual(self, lengths: np.ndarray, balances: np.ndarray) -> np.ndarray:
        """Returns bool `[n]`: whose norm and balance of signs are within the radii.

        Args:
          lengths: float64 `[n]`, norms of one variable.
          balances: float64 `[n]`, from −1, all signs negative, to 1.
        """
        by_norm = median_distances(lengths, TOLERANCE * float(np.median(lengths)))
        by_sign = median_distances(balances, TOLERANCE)
        scores = np.maximum(by_norm / self.norm_radius, by_sign / self.sign_radius)
        return scores <= 1 + TOLERANCE


def _is_kernel(shape: tuple[int, ...], trainable: bool) -> bool:
    return trainable and len(shape) >= 2


def _statistics(
    part: Updates, least: np.ndarray, factors: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns norms and balances of signs of one variable, both float64 `[n]`."""

    def block(columns: slice) -> np.ndarray:
        rows = sparsified(part.block(columns), least, factors)
        squares = np.einsum("ij,ij->i", rows, rows)
        signs = np.sign(rows)
        return np.stack([squares, signs.sum(axis=1), np.abs(signs).sum(axis=1)])

    blocks = part.map_columns(block, size=NARROW)
    squares, signs, nonzero = sum(blocks, np.zeros((3, len(part))))
    return np.sqrt(squares), signs / np.maximum(nonzero, 1)


def _mean(part: Updates, least: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Returns the plain mean of the sparsified rows of one variable, float64 `[width]`."""
    blocks = part.map_columns(
        lambda columns: sparsified(part.block(columns), least, factors).mean(axis=0), size=NARROW
    )
    return np.concatenate(list(blocks))
