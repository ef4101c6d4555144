"""Votes of noisy copies of one model, and what they prove about poisoned training data.

CRFL: Certifiably Robust Federated Learning against Backdoor Attacks
    Chulin Xie, Minghao Chen, Pin-Yu Chen, Bo Li. ICML 2021.

Compared are two trainings, which differ in the data of R clients in one round t*: in each of their
batches, a share q/n of the samples differs, each by at most ‖δ‖ in its input and one-hot label
together. With p_A and p_B the probabilities of the two leading classes among noisy copies, both
trainings end in the same vote as long as

    R·Σ_i (p_i·γ_i·τ_i·η_i·(q_i / n_i)·‖δ‖)²
        <= −ln(1 − (√p_A − √p_B)²)·σ_{t*}² / (2·L² · Π_{t = t*+1 … T} (2·Φ(ρ_t / σ_t) − 1))

p_i is the weight of client i in the mean, γ_i what it multiplies its update by in both trainings,
τ_i its local steps, η_i its learning rate, L a Lipschitz constant of the gradient in the sample,
ρ_t and σ_t norm and noise of the rule in round t, where σ_T is the noise of the copies.

The paper's text was not at hand; the formula is that of the authors' `certify_mnist.py`, and the
following was derived here. Local steps never drive two models apart if the loss is convex in the
weights and η <= 2 / β for a β-smooth one; projecting onto a ball does not either; the divergence of
two Gaussians of the same σ then bounds that of the votes, and noise of later rounds lowers it. The
authors' bound is four times what this yields, so that their radius is half of it; tffl keeps
theirs. Their product over rounds is 1 to many digits where ρ_t is hundreds of σ_t, as it is by
default.

Their code has a radius also where p_A < p_B, because it squares the difference of the roots. Here
such a vote is undecided and has none. If t* = T, their code still counts the factor of round T and
the noise of training; here, as the formula says, there is no factor, and the noise is the copies'.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tffl.engine.evaluation import NO_CLASS, majority_classes

LEAST = 1e-8
"""How far from 0 and 1 a bound of a probability stays, as in the authors' code."""


@dataclass(frozen=True)
class Poisoning:
    """Which difference of two trainings is asked about, with the same numbers for all R clients.

    Attributes:
      attackers: R.
      weight: p, of one client in the mean, times the server's learning rate.
      steps: τ, local steps in the round.
      learning_rate: η.
      share: q / n, the share of every batch that may differ.
      scale: γ, what they multiply their updates by in both trainings.
    """

    attackers: int
    weight: float
    steps: int
    learning_rate: float
    share: float = 1.0
    scale: float = 1.0

    @property
    def reach(self) -> float:
        """The root of R·Σ (p·γ·τ·η·q/n)²: how far a ‖δ‖ of 1 moves the model, if L is 1."""
        each = self.weight * self.scale * self.steps * self.learning_rate * self.share
        return self.attackers * each


def contraction(norms: Sequence[float], noises: Sequence[float]) -> float:
    """Returns Π (2·Φ(ρ_t / σ_t) − 1): what noise of later rounds leaves of a divergence.

    >>> contraction([2.0, 2.1], [0.01, 0.01]), round(contraction([1.0], [1.0]), 4)
    (1.0, 0.6827)
    """
    return math.prod(
        math.erf(norm / (noise * math.sqrt(2))) if noise else 1.0
        for norm, noise in zip(norms, noises, strict=True)
    )


def logistic_lipschitz(weight_norm: float, input_norm: float) -> float:
    """Returns L for multinomial logistic regression with a bias, derived here.

    The gradient is (p − y)·x̃ᵀ with x̃ = (x, 1) and p the softmax. Its derivative along (δ_x, δ_y) is
    at most (‖x̃‖·‖W‖ / 2 + √2)·‖δ_x‖ + ‖x̃‖·‖δ_y‖, because the softmax is ½-Lipschitz and p and y are
    at most √2 apart. The authors take √(2 + 2·ρ + ρ²), which needs inputs of a norm of at most 1.

    Args:
      weight_norm: Bound of ‖W‖ while the client trains, kernel and bias together.
      input_norm: Bound of ‖x‖, as the dense layer gets it.

    >>> round(logistic_lipschitz(3.0, 1.0), 3), round(math.sqrt(2 + 2 * 3 + 9), 3)
    (3.808, 4.123)
    """
    length = math.hypot(input_norm, 1)
    return math.hypot(length, math.sqrt(2) + length * weight_norm / 2)


def vote_bounds(votes: np.ndarray, copies: int, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns Hoeffding's bounds of the two leading classes, p_A from below and p_B from above.

    Args:
      votes: int64 `[m, classes]`, two or more classes.
      copies: M, how many copies have voted; a copy without a finite output has no vote.
      alpha: Probability with which one bound is wrong. A certificate rests on bounds of all
        classes, and is wrong with a probability of at most 2·classes·α.

    >>> vote_bounds(np.array([[900, 100]]), copies=1000, alpha=0.001)
    (array([0.8412303]), array([0.1587697]))
    """
    slack = math.sqrt(math.log(1 / alpha) / (2 * copies))
    ordered = np.sort(votes, axis=1) / copies
    lower = np.maximum(ordered[:, -1] - slack, LEAST)
    return lower, np.minimum(ordered[:, -2] + slack, 1 - LEAST)


def certified_radii(
    lower: np.ndarray, upper: np.ndarray, noise: float, drift: float, factor: float = 1.0
) -> np.ndarray:
    """Returns the largest certified ‖δ‖ of each input, by the theorem above, float64 `[m]`.

    NaN where the vote is undecided: no difference is certified then, not even none.

    Args:
      lower: p_A from below, float64 `[m]`.
      upper: p_B from above, float64 `[m]`.
      noise: σ of round t*.
      drift: L times `Poisoning.reach`.
      factor: What `contraction` returns for the rounds after t*.
    """
    gap = np.sqrt(lower) - np.sqrt(upper)
    radii = noise / drift * np.sqrt(-np.log1p(-np.square(gap)) / (2 * factor))
    return np.where(gap > 0, radii, np.nan)


@dataclass(frozen=True)
class SmoothedCertificates:
    """What noisy copies vote for, and how large a difference of the data each vote withstands.

    Attributes:
      votes: int64 `[m, classes]`.
      labels: int32 `[m]`, the true classes.
      radii: float64 `[m]`, NaN without a certificate.
    """

    votes: np.ndarray
    labels: np.ndarray
    radii: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """The class with most votes, int64 `[m]`; the lowest of a tie, -1 without any vote."""
        return majority_classes(self.votes)

    @property
    def smoothed_accuracy(self) -> float:
        """Share of the inputs whose vote is right; nothing is proved of it."""
        return float((self.predicted == self.labels).mean())

    @property
    def largest(self) -> float:
        """The largest radius; 0 if no input has any."""
        return float(np.nanmax(self.radii, initial=0.0))

    def rate(self, radius: float) -> float:
        """Returns the share of inputs whose vote withstands a difference of that size."""
        return float((self.radii >= radius).mean())

    def accuracy(self, radius: float) -> float:
        """Returns the share of inputs whose vote withstands it and is right."""
        return float(((self.radii >= radius) & (self.predicted == self.labels)).mean())

    def rows(self) -> list[dict[str, int | float | None]]:
        """Returns one table row per input; None where there is no vote or no certificate."""
        ordered = np.sort(self.votes, axis=1)
        columns = (self.labels, self.predicted, ordered[:, -1], ordered[:, -2], self.radii)
        return [
            {
                "input": i,
                "label": label,
                "predicted": None if predicted == NO_CLASS else predicted,
                "votes": votes,
                "runner_up": second,
                "radius": None if math.isnan(radius) else radius,
            }
            for i, (label, predicted, votes, second, radius) in enumerate(
                zip(*(column.tolist() for column in columns), strict=True)
            )
        ]
