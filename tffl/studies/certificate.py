"""What CRFL's theorem needs to know of a training, and what it presumes of it."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from tffl.attacks import create_attack
from tffl.attacks.data_attack import DataAttack
from tffl.attacks.learned_trigger import LearnedTrigger
from tffl.config import Config
from tffl.core.errors import UsageError, require
from tffl.core.options import Options
from tffl.core.updates import Updates
from tffl.defenses import create_defense
from tffl.defenses.crfl import Crfl
from tffl.defenses.parts.noise import add_noise

if TYPE_CHECKING:
    from tffl.engine.smoothing import Poisoning
    from tffl.simulation.experiment import Experiment


Above0 = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Question(Options):
    """What is to be certified, and how.

    Attributes:
      attackers: R >= 1, the clients whose data may differ.
      share: q / n in (0, 1], the share of each of their batches, the smaller last one included.
      scale: γ, what they multiply their updates by in both trainings; the run's own if None.
      round: t*, in which the data differ; the last one if None.
      copies: M.
      alpha: Probability with which one of Hoeffding's bounds is wrong.
      noise: σ_T of the copies; that of the rule if None.
      lipschitz: L; if None, derived for `logistic`.
      input_norm: Bound of an input's norm, poisoned ones included, as the dense layer gets it; if
        None, that of images of the brightest pixels.
    """

    attackers: Annotated[int, Field(ge=1)] = 1
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    scale: Above0 | None = None
    round: Annotated[int, Field(ge=1)] | None = None
    copies: Annotated[int, Field(ge=1)] = 1000
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.001
    noise: Above0 | None = None
    lipschitz: Above0 | None = None
    input_norm: Above0 | None = None

    def resolved(self, config: Config) -> Question:
        """Returns it with round, noise and scale filled in.

        Raises:
          UsageError: The run has another defense, or a value does not fit it.
        """
        rounds, name = config.federation.rounds, config.defense.name
        defense = create_defense(name, config.defense.options)
        if not isinstance(defense, Crfl):
            hint = "; its own certificates are in certificates.csv" if "flcert" in name else ""
            raise UsageError(f"only crfl can be certified, and the run's defense is {name}{hint}")
        round = self.round or rounds
        noise = defense.noise if self.noise is None else self.noise
        require(noise > 0, "without noise nothing is certified: give --noise, such as 0.01")
        require(round <= rounds, f"--round {round} is not allowed: the run has {rounds} rounds")
        require(
            round == rounds or defense.noise > 0,
            f"--round {round} is not allowed: with defense.noise = 0, only a difference in the "
            f"last round, {rounds}, can be certified",
        )
        most = config.federation.participant_count
        require(
            self.attackers <= most,
            f"--attackers {self.attackers} is not allowed: {most} clients take part in a round",
        )
        scale = multiplied(config, round) if self.scale is None else self.scale
        return replace(self, round=round, noise=noise, scale=scale)


def multiplied(config: Config, round: int) -> float:
    """Returns the most that clients of the run multiply their updates by in a round, at least 1."""
    attack = create_attack(config.attack.name, config.attack.options)
    if not isinstance(attack, DataAttack) or not attack.active(round):
        return 1.0
    return max(1.0, abs(attack.scale))


def unmet(
    config: Config, question: Question, smoothness: float | None, lipschitz: float | None
) -> list[str]:
    """Returns in a sentence each which assumptions of the theorem do not hold for a training.

    Args:
      config: The run.
      question: Resolved.
      smoothness: β of the loss; None if it is not known.
      lipschitz: L; None if it is not known.
    """
    training, attack = config.training, create_attack(config.attack.name, config.attack.options)
    round, rounds = question.round or 0, config.federation.rounds
    rate, own = training.learning_rate_of(round, rounds), multiplied(config, round)
    follows = isinstance(attack, DataAttack) and not isinstance(attack, LearnedTrigger)
    most = math.inf if smoothness is None else 2 / smoothness
    found = [
        (
            config.model.name != "logistic",
            f"The loss of {config.model.name} is not known to be convex in the weights; that of "
            "logistic is.",
        ),
        (training.optimizer != "sgd", f"Clients train with {training.optimizer}, not with sgd."),
        (training.momentum > 0, f"Steps have momentum {training.momentum:g}."),
        (training.weight_decay > 0, f"Weights decay by {training.weight_decay:g}."),
        (training.precision != "float32", f"Gradients are rounded to {training.precision}."),
        (
            rate > most,
            f"The learning rate {rate:.4g} is above 2 / β = {most:.4g}, so that local steps may "
            "drive two models apart.",
        ),
        (
            lipschitz is None,
            "No Lipschitz constant of the gradient is known: give --lipschitz, or --input-norm if "
            "the model is logistic.",
        ),
        (
            config.attack.name != "none" and not follows,
            f"The run's own attackers ({config.attack.name}) do not train as they are told.",
        ),
        (
            question.scale != own,
            f"γ is {question.scale:g}, but clients of the run multiply their updates by up to "
            f"{own:g}: both trainings must do the same.",
        ),
        (
            round < rounds,
            f"The votes are those of one training, which has drawn its noise of rounds {round} to "
            f"{rounds - 1}; p_A and p_B are over that noise too, that is, over many trainings.",
        ),
    ]
    return [sentence for fails, sentence in found if fails]


@dataclass(frozen=True)
class Facts:
    """The numbers of a training that the theorem needs.

    Attributes:
      poisoning: Which difference is asked about.
      noise: σ of round t*.
      factor: What noise of later rounds leaves of a divergence.
      input_norm: Bound of an input's norm, if there is one.
      smoothness: β of the loss, if it is known.
      lipschitz: L, if it is known.
    """

    poisoning: Poisoning
    noise: float
    factor: float
    input_norm: float | None
    smoothness: float | None
    lipschitz: float | None

    @classmethod
    def of(
        cls, experiment: Experiment, asked: Question, first: float, skipped: Collection[int]
    ) -> Facts:
        """Reads them off an experiment, given ρ_0's model norm and the rounds that were skipped."""
        from tffl.engine.smoothing import Poisoning, contraction, logistic_lipschitz

        config, rule = experiment.config, experiment.defense
        assert isinstance(rule, Crfl) and asked.round is not None and asked.noise is not None
        assert asked.scale is not None
        training, rounds, round = config.training, config.federation.rounds, asked.round
        rate = training.learning_rate_of(round, rounds)
        clients, data = experiment.participants(round), experiment.attackers.data(round)
        largest = max(len(data[client]) for client in clients.tolist())
        steps = training.local_epochs * math.ceil(largest / training.batch_size)
        weight = config.federation.server_learning_rate / len(clients)
        poisoning = Poisoning(asked.attackers, weight, steps, rate, asked.share, asked.scale)
        noises = dict.fromkeys(range(1, rounds), rule.noise) | {rounds: asked.noise}
        later = [t for t in range(round + 1, rounds + 1) if t not in skipped]
        factor = contraction([rule.limit(first, t) for t in later], [noises[t] for t in later])
        lipschitz, smoothness, length = asked.lipschitz, None, asked.input_norm
        if config.model.name == "logistic":
            length = _input_norm(experiment) if length is None else length
        if config.model.name == "logistic" and length is not None:
            smoothness = (length**2 + 1) / 2
            moved = steps * rate * math.sqrt(2 * (length**2 + 1))
            norm = _start_norm(experiment, rule, first, round) + moved
            lipschitz = logistic_lipschitz(norm, length) if lipschitz is None else lipschitz
        return cls(poisoning, noises[round], factor, length, smoothness, lipschitz)

    def radii(self, votes: np.ndarray, asked: Question) -> np.ndarray:
        """Returns the radius of each input, float64 `[m]`; L must be known."""
        from tffl.engine.smoothing import certified_radii, vote_bounds

        assert self.lipschitz is not None
        lower, upper = vote_bounds(votes, asked.copies, asked.alpha)
        drift = self.lipschitz * self.poisoning.reach
        return certified_radii(lower, upper, self.noise, drift, self.factor)


def _start_norm(experiment: Experiment, rule: Crfl, first: float, round: int) -> float:
    """Returns a bound of the norm of the model that clients begin a round with."""
    layout, norms = experiment.layout, [first]
    for earlier in range(1, round):
        empty = Updates.of_rows(np.zeros((1, layout.size)), layout=layout, round=earlier)
        noise = np.zeros(layout.size, np.float32)
        add_noise(noise, rule.noise, empty, experiment.server, "crfl")
        norms.append(rule.limit(first, earlier) + float(np.linalg.norm(noise)))
    return max(norms)


def _input_norm(experiment: Experiment) -> float | None:
    """Returns the largest norm that an image can have in front of the dense layer of `logistic`.

    None for feature vectors, which may be of any length.
    """
    import keras

    model, shape = experiment.model, experiment.model.input_shape[1:]
    if len(shape) != 3:
        return None
    front = keras.Model(model.input, model.layers[-1].input)
    extremes = [np.full((1, *shape), value, np.float32) for value in experiment.compiled.pixels]
    return float(np.linalg.norm(np.max([np.abs(front(image)) for image in extremes], axis=0)))
