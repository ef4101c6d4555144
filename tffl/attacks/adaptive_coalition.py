"""Adaptive poisoning of `coalition`: the most damage that the detector lets pass, found in advance.

    max_s  E(w'(s))    subject to    ‖s‖ ≤ r,   g(w'(s))·(Δ̄ + s) ≤ h̃ + τ·σ
    every step:  s ← P_r(s + η·r·e/‖e‖),   e = ∇E less its part along g;   then less what exceeds τ
    sent:  Δ_j ← c + a_j·(Δ_j − c) + γ·s + β_j·g,   a_j ≤ 1 the largest with ‖Δ_j − c‖ ≤ r

E is the mean of 1 − p(true class) on the attackers' own images, g the gradient of the cross-entropy
on the server's images, Δ̄ the colluders' mean update as trained, h̃ and σ the median and the robust
standard deviation of what the honest clients cost, g·Δ_i. c, r and w' are those of
`tffl.attacks.bounded`. β makes the colluders cost τ·σ more than the median on average.

So the attackers use what the detector does not measure:

- It measures cross-entropy, and accuracy is another thing. A model that becomes wrong where it was
  barely right, and less wrong where it was wrong anyway, costs nothing. The images of a step are
  drawn in proportion to p(true class), so that its gradient is that of 1 − p.
- The bound is on all classes together. What serves E harms some and improves others, and the
  detector takes clients who improve something for honest ones of uneven data.
- The less evenly they share what they cost, the less significant is the mean of it. Each colluder
  keeps as much of its own update as the distance allows, and the shares may be made more uneven.

They play the round with the detector's own code, and its memory of earlier rounds. γ is the largest
strength at which it convicts no colluder at τ = 0; then τ is found by bisection, for several
unevennesses; and of all that stays hidden they send what makes E largest after the verdict. If
nothing stays hidden, they send what they trained.

The attack is tffl's own. It bounds the distance, although `coalition` does not, since rules beside
it do, such as those in `shield`. Without `knows_probes` they take one half of their own images for
those of the server, and craft with the other half. They may be convicted after all; so they may
with `knows` other than `all-benign`, or after rounds in which none of them took part. Where their
own updates stand in for honest ones, these are mirrored at their mean: a colluder and its stand-in
would otherwise be near-duplicates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Field

from tffl.attacks.adaptive_cam import DEFENSE, SECRET_PROBES
from tffl.attacks.base import State
from tffl.attacks.bounded import BoundedAttack, ExpectedModel, length, project, unit
from tffl.attacks.model_attack import Spread
from tffl.attacks.rehearsal import TINY, Attempt, Price, Rehearsal, detector_of, imagined
from tffl.core import seeds
from tffl.core.pixels import as_bytes
from tffl.core.updates import Updates
from tffl.data.federation import Dataset
from tffl.data.samples import Samples
from tffl.defenses.coalition import joint_weights
from tffl.defenses.server import Server
from tffl.explain.maps import Probes
from tffl.explain.probes import draw

if TYPE_CHECKING:
    from tffl.attacks.adversary import Adversary

STRENGTHS = (1.0, 0.9, 0.8, 0.7, 0.55, 0.4, 0.2, 0.1)
"""Values of γ that are tried, until one stays hidden."""

UNEVENNESS = (0.0, 2.0, 4.0)
"""How unevenly the colluders may share what they cost, in units of σ."""


@dataclass(frozen=True)
class AdaptiveCoalition(BoundedAttack):
    """Makes the joint model as wrong as it can be without a conviction by `coalition`.

    Attributes:
      spread: As in other attacks, but `own` rows are drawn in to the bound on the distance.
      level: τ of the ascent: what the colluders may cost beyond the median, in robust standard
        deviations of honest costs. What is sent costs at most twice that.
      margin: Share of the detector's limits that they use.
      halvings: How often the interval of τ is halved; every time costs the gradients of a verdict.
      knows_probes: Play the round with the server's secret images instead of the attackers' own.

    >>> AdaptiveCoalition(knows_probes=True).declared_knowledge()[-2:]
    ('defense', 'probe images')
    """

    spread: Spread = "own"
    steps: Annotated[int, Field(ge=1)] = 10
    step: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.25
    level: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2.0
    margin: Annotated[float, Field(gt=0, le=1)] = 0.9
    halvings: Annotated[int, Field(ge=0, le=20)] = 4
    knows_probes: bool = False

    knowledge: ClassVar[tuple[str, ...]] = (*BoundedAttack.knowledge, DEFENSE, SECRET_PROBES)
    reference: ClassVar[str] = "tffl's own"

    def check(self, dataset: Dataset) -> None:
        """Raises `UsageError` if there are no images on which a model could cost anything."""
        super().check(dataset)
        dataset.require_images("adaptive-coalition")

    def declared_knowledge(self) -> tuple[str, ...]:
        """Returns what the attack reads with these options."""
        words = super().declared_knowledge()
        return words if self.knows_probes else tuple(w for w in words if w != SECRET_PROBES)

    def init(self, adversary: Adversary) -> State:
        """Returns what a detector remembers that has not seen anyone."""
        return detector_of(adversary.config.defense.options).init(self._server(adversary))

    def craft(
        self, updates: Updates, malicious: np.ndarray, adversary: Adversary, state: State
    ) -> tuple[np.ndarray, State]:
        """Returns a row for each, `[m, d]`."""
        seen = self.seen(updates, malicious, adversary)
        expected = ExpectedModel.of(updates, malicious, seen)
        free = self.modifiable(updates.layout, adversary.seed)
        bound = self.bound(expected, updates, malicious, free)
        everyone, colluders = imagined(updates, malicious, seen, adversary.clients)
        detector = detector_of(adversary.config.defense.options)
        server, own = self._server(adversary), self._own(adversary, 0)
        probes = Probes(own.images, own.labels)
        if self.knows_probes and server.samples is not None:
            count = min(detector.images, len(server.samples.labels))
            probes = draw(server.samples, count, server.seed)
        played = (everyone, colluders, detector, server, state, probes)
        play = Rehearsal(*played, own.images, own.labels)
        move = self._ascend(play, adversary, expected.share, free, bound)

        rows = _Rows(self, expected.center, bound, free, updates, malicious, adversary)

        def attempt(strength: float, price: Price) -> Attempt:
            unpriced = sent = rows.moved(strength * move)
            for _ in range(2):  # costs are measured where the rows lead to
                there = joint_weights(everyone.with_rows(colluders, sent), server.learning_rate)
                slope = np.where(free, play.slope(there), 0)
                sent = rows.drawn_in(play.priced(unpriced, slope, price))
            return play.attempt(sent, self.margin)

        chosen = self._strongest(attempt)
        chosen = chosen or play.attempt(updates.select(malicious).deltas, self.margin)
        return chosen.rows, dict(chosen.remembered)

    def varied(
        self, crafted: np.ndarray, updates: Updates, malicious: np.ndarray, adversary: Adversary
    ) -> np.ndarray:
        """Returns the rows as they are: those that the detector has been tried with."""
        return crafted

    def _server(self, adversary: Adversary) -> Server:
        samples = adversary.server_samples if self.knows_probes else self._own(adversary, 1)
        rate = adversary.config.federation.server_learning_rate
        return Server(
            adversary.model,
            adversary.layout,
            adversary.clients,
            adversary.seed,
            learning_rate=rate,
            samples=samples,
            explainer=adversary.explainer,
        )

    def _own(self, adversary: Adversary, half: int) -> Samples:
        """Returns their own images: all if they know the probes, else one half, 0 or 1."""
        images, labels = adversary.samples()
        order = seeds.generator(adversary.seed, "held out").permutation(len(labels))
        rows = np.sort(order if self.knows_probes else order[half::2])
        pictures = as_bytes(images[rows], adversary.pixels)
        return Samples(pictures, labels[rows], adversary.classes, adversary.class_names)

    def _ascend(
        self, play: Rehearsal, adversary: Adversary, share: float, free: np.ndarray, bound: float
    ) -> np.ndarray:
        """Returns s, float64 `[d]`."""
        labels = play.labels
        generator = seeds.generator(adversary.seed, "ascent batches", play.updates.round)
        start, own = play.joint(play.updates), play.updates.select(play.colluders).deltas
        move = np.zeros(play.updates.layout.size)
        rate = play.server.learning_rate * share
        for _ in range(self.steps):
            weights = (start + rate * move).astype(np.float32)
            chance = play.certainties(weights) + TINY
            count = min(self.batch, len(labels))
            rows = generator.choice(len(labels), count, p=chance / chance.sum())
            _, climb = adversary.explainer.loss(weights, Probes(play.images[rows], labels[rows]))
            slope = unit(np.where(free, play.slope(weights), 0))
            ascent = np.where(free, climb, 0).astype(np.float64)
            ascent -= np.einsum("j,j->", ascent, slope) * slope
            move = project(move + self.step * bound * unit(ascent), bound)
            after = (start + rate * move).astype(np.float32)
            slope = np.where(free, play.slope(after), 0)
            excess, spread = play.excess((own + move).astype(np.float32), slope)
            surplus = max(float(excess.mean()) - self.level * spread, 0.0)
            square = max(float(np.einsum("j,j->", slope, slope)), TINY)
            move = project(move - surplus / square * slope, bound)
        return move

    def _strongest(self, attempt: Callable[[float, Price], Attempt]) -> Attempt | None:
        """Returns the worst of the attempts that stay hidden; None if none does."""
        strength, first = 0.0, None
        for strength in STRENGTHS:
            first = attempt(strength, Price(0.0, 0.0))
            if first.hidden:
                break
        if first is None or not first.hidden:
            return None
        hidden = [first]
        for unevenness in UNEVENNESS if self.spread == "own" else UNEVENNESS[:1]:
            low, high = 0.0, 2 * self.level
            for _ in range(self.halvings):
                middle = (low + high) / 2
                tried = attempt(strength, Price(middle, unevenness))
                hidden += [tried] * tried.hidden
                low, high = (middle, high) if tried.hidden else (low, middle)
        return max(hidden, key=lambda tried: tried.damage)


@dataclass(frozen=True)
class _Rows:
    """Makes the colluders' rows of a common shift."""

    attack: AdaptiveCoalition
    center: np.ndarray
    bound: float
    free: np.ndarray
    updates: Updates
    malicious: np.ndarray
    adversary: Adversary

    def moved(self, move: np.ndarray) -> np.ndarray:
        """Returns float32 `[m, d]`, or `[1, d]` if all send the same, for a shift `[d]`."""
        if self.attack.spread != "own":
            crafted = (self.center + move).astype(np.float32)[None]
            vary = super(AdaptiveCoalition, self.attack).varied
            rows = vary(crafted, self.updates, self.malicious, self.adversary)
            return self.drawn_in(rows)
        rows = np.array(self.updates.select(self.malicious).deltas)
        room = length(move) ** 2 - self.bound**2
        for row in rows:
            away = self._away(row)
            square, along = (float(np.einsum("j,j->", away, other)) for other in (away, move))
            root = np.sqrt(max(along**2 - square * room, 0.0))
            kept = min(max((root - along) / max(square, TINY), 0.0), 1.0)
            row += (kept - 1) * away + move
        return rows

    def drawn_in(self, rows: np.ndarray) -> np.ndarray:
        """Returns rows no farther from the center than the bound."""
        drawn = np.array(rows)
        for row in drawn:
            away = self._away(row)
            row += project(away, self.bound) - away
        return drawn

    def _away(self, row: np.ndarray) -> np.ndarray:
        return np.where(self.free, row.astype(np.float64) - self.center, 0)
