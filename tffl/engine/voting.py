"""Several global models that predict by majority vote, and the certificates of their votes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

from tffl.engine.evaluation import NO_CLASS, majority_classes
from tffl.models.layers import set_weights


def majority_model(model: keras.Model, weights: Sequence[Sequence[np.ndarray]]) -> keras.Model:
    """Returns one model that predicts by majority vote of several models.

    It consists of Keras' own layers, so that it can be loaded where tffl is not installed.

    Args:
      model: The architecture of all models.
      weights: The arguments of `model.set_weights` for each model, at least two.

    Returns:
      A model from the same images to float32 `[batch, classes]`: each class's share of the votes,
      not logits. Its `argmax` is the majority, or the lowest class of a tie. Outputs that are not
      finite cast no vote.
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
    """How many malicious clients each prediction of a majority vote tolerates.

    Every client belongs to one model's group, so that m malicious clients change at most m votes.
    The winner y stays ahead of the runner-up z as long as

        votes_y − m > votes_z + m, or equal and y < z:  m ≤ ⌊(votes_y − votes_z − [z < y]) / 2⌋

    Provably Secure Federated Learning against Malicious Clients
        Xiaoyu Cao, Jinyuan Jia, Neil Zhenqiang Gong. AAAI 2021.
    FLCert: Provably Secure Federated Learning Against Poisoning Attacks
        Xiaoyu Cao, Zaixi Zhang, Jinyuan Jia, Neil Zhenqiang Gong. IEEE TIFS 2022.

    The bound is derived as above, not copied from the papers. It holds for attackers that are
    clients from the first round on, and for groups that depend on client ids only.

    Attributes:
      votes: int64 `[m, classes]`, how many models predict each class.
      labels: int32 `[m]`, the true classes.
    """

    votes: np.ndarray
    labels: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """The class with most votes, int64 `[m]`; the lowest of a tie, -1 without any vote."""
        return majority_classes(self.votes)

    @property
    def tolerated(self) -> np.ndarray:
        """The number of malicious clients that cannot change the prediction, int64 `[m]`."""
        rows, winner = np.arange(len(self.votes)), self.votes.argmax(axis=1)
        most = self.votes[rows, winner]
        before = np.arange(self.votes.shape[1]) < winner[:, None]
        rivals = self.votes + before  # a rival that would win a tie counts one vote more
        rivals[rows, winner] = -1
        return (most - rivals.max(axis=1)) // 2

    def accuracy(self) -> list[float]:
        """Returns for m = 0, 1, … the share of inputs that m attackers cannot make wrong."""
        right = self.predicted == self.labels
        counts = range(int(self.tolerated.max(initial=0)) + 1)
        return [float((right & (self.tolerated >= count)).mean()) for count in counts]

    def rows(self) -> list[dict[str, int | None]]:
        """Returns one table row per input; `predicted` is None without any vote."""
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
