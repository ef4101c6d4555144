"""Several global models that predict by majority, and what that proves against attackers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

from tffl.engine.evaluation import NO_CLASS, majority_classes
from tffl.models.layers import set_weights


def majority_model(model: keras.Model, weights: Sequence[Sequence[np.ndarray]]) -> keras.Model:
    """Returns one model of several weights, whose outputs are shares of votes, not logits.

    It is made of Keras' own layers only, so that it can be loaded where tffl is not installed.

    Args:
      model: The architecture that all share.
      weights: For each of them, at least two, what `model.set_weights` wants.

    Returns:
      A model from the same images to float32 `[batch, classes]`. `argmax` of it is the majority,
      the lowest class of those that tie. Outputs that are not finite are no vote.
    """
    inputs = keras.Input(model.input_shape[1:])
    ballots = []
    for number, arrays in enumerate(weights):
        member = keras.models.clone_model(model)
        set_weights(member, arrays)
        member.name = f"model_{number}"
        logits = member(inputs)
        finite = keras.ops.all(keras.ops.isfinite(logits), axis=-1)
        choice = keras.ops.where(finite, keras.ops.argmax(logits, axis=-1), NO_CLASS)
        ballots.append(keras.ops.one_hot(choice, model.output_shape[-1], dtype="float32"))
    shares = keras.layers.Average(name="votes", dtype="float32")(ballots)
    return keras.Model(inputs, shares, name=f"{model.name}_majority")


@dataclass(frozen=True)
class Certificates:
    """What a majority of models that share no client proves about its predictions.

    One client takes part in one group, so that m malicious clients move at most m votes. The
    winner y keeps its place before the runner-up z as long as

        votes_y − m > votes_z + m, or equal and y < z:  m ≤ ⌊(votes_y − votes_z − [z < y]) / 2⌋

    Provably Secure Federated Learning against Malicious Clients
        Xiaoyu Cao, Jinyuan Jia, Neil Zhenqiang Gong. AAAI 2021.
    FLCert: Provably Secure Federated Learning Against Poisoning Attacks
        Xiaoyu Cao, Zaixi Zhang, Jinyuan Jia, Neil Zhenqiang Gong. IEEE TIFS 2022.

    The bound is derived as above, not copied from the papers. It holds for attackers that were
    among the clients from the first round on, in groups that depend on client ids only.

    Attributes:
      votes: int64 `[m, classes]`, how many models predict each class.
      labels: int32 `[m]`, the truth.
    """

    votes: np.ndarray
    labels: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """int64 `[m]`: the class with most votes, the lowest of those that tie; -1 if none has."""
        return majority_classes(self.votes)

    @property
    def tolerated(self) -> np.ndarray:
        """int64 `[m]`: with how many malicious clients the prediction stays the same for sure."""
        rows, winner = np.arange(len(self.votes)), self.votes.argmax(axis=1)
        most = self.votes[rows, winner]
        before = np.arange(self.votes.shape[1]) < winner[:, None]
        rivals = self.votes + before  # a rival that wins ties counts one vote more
        rivals[rows, winner] = -1
        return (most - rivals.max(axis=1)) // 2

    def accuracy(self) -> list[float]:
        """Returns the share of inputs that m clients cannot make wrong, for m from 0 up."""
        right = self.predicted == self.labels
        counts = range(int(self.tolerated.max(initial=0)) + 1)
        return [float((right & (self.tolerated >= count)).mean()) for count in counts]

    def rows(self) -> list[dict[str, int | None]]:
        """Returns one row per input, for a table; without a vote there is no prediction."""
        columns = (self.labels, self.predicted, self.votes.max(axis=1), self.tolerated)
        return [
            {
                "input": i,
                "label": a,
                "predicted": None if b == NO_CLASS else b,
                "votes": c,
                "tolerated": d,
            }
            for i, (a, b, c, d) in enumerate(zip(*(x.tolist() for x in columns), strict=True))
        ]
