"""What Bilgin's paper claims, and what was measured; each text says when its claim holds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from tffl.core.metrics import roc_auc
from tffl.studies.benchmark_table import mean
from tffl.studies.localize import EARLY
from tffl.studies.pages.verdicts import Judged, compare, judged

if TYPE_CHECKING:
    import pandas as pd

CURVES = {
    "4a": "1 malicious of 10",
    "4b": "2 malicious of 10",
    "4c": "5 malicious of 10",
    "5a": "learning rate 0.1",
    "5b": "learning rate 0.01",
    "5c": "learning rate 0.001",
    "6a": "data rate 1/1",
    "6b": "data rate 1/10",
    "6c": "data rate 1/50",
}
SAME = {"5b": "4a"}
"""Curves that are the same experiment."""
ROUNDS = 25
BIAS = "logits/bias"
CHANCE = 0.2
"""An AUC within this of 0.5 counts as chance."""
TELLING = 0.9
"""A variable gives the attackers away if its AUC is at least this."""


@dataclass(frozen=True)
class Evidence:
    """The numbers behind the claims; NaN where a curve has not been run.

    Attributes:
      joint: Accuracy and loss of the joint model by round.
      bias: Maximum deviation of the final bias by round and client.
      ranking: Ranking of variables.
    """

    joint: pd.DataFrame
    bias: pd.DataFrame
    ranking: pd.DataFrame

    def early_auc(self, figure: str) -> dict[str, float]:
        """Returns the AUC of each variable over the first rounds, mean over seeds."""
        chosen = self._ranked(figure)
        means = chosen.groupby("variable", sort=False)["auc_early"].mean()
        return {str(name): float(value) for name, value in means.items()}

    def auc(self, figure: str) -> float:
        """Returns the AUC of the final bias over all rounds, mean over seeds."""
        chosen = self._ranked(figure)
        return float(chosen[chosen["variable"] == BIAS]["auc"].mean())

    def late_auc(self, figure: str, first: int = 7) -> float:
        """Returns the mean AUC of the final bias from a round on."""
        mine = self.bias[(self.bias["figure"] == figure) & (self.bias["round"] >= first)]
        found = [
            roc_auc(part["malicious"].to_numpy(), part["clients"].to_numpy())
            for _, part in mine.groupby(["seed", "round"])
        ]
        known = [value for value in found if value is not None]
        return mean(known)

    def ratio(self, figure: str) -> pd.Series:
        """Returns the median malicious deviation over the largest benign one, by round."""
        mine = self.bias[self.bias["figure"] == figure]
        bad = mine[mine["malicious"] == 1].groupby(["seed", "round"])["clients"].median()
        good = mine[mine["malicious"] == 0].groupby(["seed", "round"])["clients"].max()
        return (bad / good).groupby("round").mean()

    def first_below(self, figure: str) -> float:
        """Returns the first round in which that ratio is below 1; infinity if it never is."""
        ratio = self.ratio(figure)
        below = ratio[ratio < 1].index
        if len(ratio) == 0:
            return math.nan
        return float(below[0]) if len(below) else math.inf

    def level(self, figure: str, first: int = 1, last: int = ROUNDS, malicious: int = 1) -> float:
        """Returns the median deviation of malicious or benign clients in some rounds, seed 0."""
        mine = self.bias[(self.bias["figure"] == figure) & (self.bias["seed"] == 0)]
        mine = mine[(mine["malicious"] == malicious) & mine["round"].between(first, last)]
        return float(mine["clients"].median())

    def last(self, figure: str, column: str) -> float:
        """Returns a curve's value after the last round, mean over seeds."""
        mine = self.joint[(self.joint["figure"] == figure) & (self.joint["round"] == ROUNDS)]
        return float(mine[column].mean())

    def highest(self, figure: str, column: str) -> float:
        """Returns a curve's highest value."""
        return float(self.joint[self.joint["figure"] == figure][column].max())

    def _ranked(self, figure: str) -> pd.DataFrame:
        rows = self.ranking
        chosen = rows[(rows["figure"] == figure) & (rows["statistic"] == "max")]
        return chosen[chosen["reference"] == "clients"]


def claims(e: Evidence) -> Iterator[Judged]:
    """Yields every claim with its verdict."""
    yield only_the_bias(e)
    yield it_fades(e)
    yield gone_from_round_7(e)
    yield two_attack_better(e)
    yield gone_with_five(e)
    yield backdoor_beats_main_task(e)
    yield scales_with_learning_rate(e)
    yield harmless_at_high_rate(e)
    yield softens_with_data_rate(e)
    yield stands_out_at_full_rate(e)


def only_the_bias(e: Evidence) -> Judged:
    """The anomaly is in the final layer's bias alone."""
    early = e.early_auc("4a")
    bias = early.pop(BIAS, math.nan)
    others = {name: value for name, value in early.items() if value >= TELLING}
    named = ", ".join(f"`{name}` {value:.2f}" for name, value in others.items())
    return judged(
        "With 1 of 10 malicious, the anomaly sits in the final layer's bias and nowhere else.",
        f"AUC of the maximum deviation, first {EARLY} rounds, mean over seeds: final bias "
        f"{bias:.2f}; others at {TELLING} or more: {named or 'none'}. (Holds if the bias reaches "
        f"{TELLING} and no other variable does.)",
        compare(bias, ">=", TELLING),
        not others,
    )


def it_fades(e: Evidence) -> Judged:
    """The anomaly fades."""
    ratio = e.ratio("4a")
    first, late = float(ratio.loc[1:3].mean()), float(ratio.loc[16:ROUNDS].mean())
    falls = compare(late, "<", first)
    # Something that falls and does not vanish neither supports the claim nor refutes it.
    ends = None if falls and late >= 1 else compare(late, "<", 1)
    return judged(
        "It fades as training proceeds …",
        f"malicious deviation over the largest benign one, mean over seeds: {first:.2f} in rounds "
        f"1–3, {late:.2f} in rounds 16–{ROUNDS}; first round below 1: {_round(e.first_below('4a'))}"
        f"; AUC over all rounds {e.auc('4a'):.2f}. (Holds if above 1 at first and below 1 in the "
        "end; undecided if it falls and stays above 1.)",
        compare(first, ">", 1),
        ends,
    )


def gone_from_round_7(e: Evidence) -> Judged:
    """The malicious client is like the others from round 7 on."""
    first = e.first_below("4a")
    return judged(
        "… and from round 7 on the malicious client acts like the others.",
        f"first round below 1: {_round(first)}; AUC in rounds 7–{ROUNDS}: {e.late_auc('4a'):.2f}. "
        "(Holds if the first round below 1 is 7 or earlier.)",
        compare(first, "<=", 7),
    )


def two_attack_better(e: Evidence) -> Judged:
    """Two attackers with the same poisoned data do better than one."""
    one, two = (e.last(figure, "backdoor_accuracy") for figure in ("4a", "4b"))
    one_loss, two_loss = (e.last(figure, "backdoor_loss") for figure in ("4a", "4b"))
    equal = one == two
    return judged(
        "Two malicious clients with the same total of poisoned data attack more effectively than "
        "one.",
        f"backdoor accuracy after round {ROUNDS}: {one:.2f} with one, {two:.2f} with two; backdoor "
        f"loss {one_loss:.2f} and {two_loss:.2f}.",
        compare(two_loss, "<", one_loss) if equal else compare(two, ">", one),
    )


def gone_with_five(e: Evidence) -> Judged:
    """Five attackers leave no anomaly."""
    value = e.auc("4c")
    return judged(
        "With 5 of 10 malicious the anomaly disappears.",
        f"AUC of the final bias over all rounds: {value:.2f}. (Holds if within {CHANCE} of 0.5.)",
        compare(value, "~", 0.5, CHANCE),
    )


def backdoor_beats_main_task(e: Evidence) -> Judged:
    """With five attackers the backdoor is learned better than the main task."""
    main, back = e.last("4c", "accuracy"), e.last("4c", "backdoor_accuracy")
    return judged(
        "With 5 of 10 malicious the backdoor does better than the main task.",
        f"after round {ROUNDS}: backdoor accuracy {back:.2f}, main task {main:.2f}.",
        compare(back, ">", main),
    )


def scales_with_learning_rate(e: Evidence) -> Judged:
    """A larger learning rate gives a larger deviation."""
    levels = [e.level(figure) for figure in ("5a", "5b", "5c")]
    start = [e.level(figure, 1, 1) for figure in ("5a", "5b", "5c")]
    return judged(
        "The deviation scales with the learning rate.",
        "median deviation of the malicious client at learning rate 0.1, 0.01, 0.001: "
        f"{_list(levels)} over all rounds, {_list(start)} in round 1. (Holds if ordered.)",
        *(compare(one, ">", other) for one, other in pairwise(levels)),
    )


def harmless_at_high_rate(e: Evidence) -> Judged:
    """At a high learning rate the backdoor does no harm to the main task."""
    main, usual = (e.last(figure, "accuracy") for figure in ("5a", "5b"))
    peak, back = e.highest("5a", "backdoor_accuracy"), e.last("5a", "backdoor_accuracy")
    return judged(
        "At learning rate 0.1 the backdoor gets in without harm to the main task.",
        f"backdoor accuracy {peak:.2f} at its highest, {back:.2f} after round {ROUNDS}; main task "
        f"{main:.2f}, against {usual:.2f} at learning rate 0.01 (test images; the paper's 100 % "
        "can only be training accuracy). (Holds if it once reaches 0.95 and the main task ends no "
        "more than 2 points below.)",
        compare(peak, ">=", 0.95),
        compare(main, ">=", usual - 0.02),
    )


def softens_with_data_rate(e: Evidence) -> Judged:
    """Less poisoned data gives a smaller deviation."""
    start = [e.level(figure, 1, 3) for figure in ("6a", "4a", "6b", "6c")]
    return judged(
        "The deviation softens as the malicious data rate falls.",
        "median deviation of the malicious client in rounds 1–3 at rate 1/1, 1/3, 1/10, 1/50: "
        f"{_list(start)}; benign clients at 1/50: {e.level('6c', 1, 3, malicious=0):.4f}. (Holds "
        "if ordered.)",
        *(compare(one, ">", other) for one, other in pairwise(start)),
    )


def stands_out_at_full_rate(e: Evidence) -> Judged:
    """A client with nothing but poisoned data is seen in every round, and fails."""
    least = float(e.ratio("6a").min())
    early, late = e.level("6a", 1, 5), e.level("6a", 21, ROUNDS)
    back = e.last("6a", "backdoor_accuracy")
    return judged(
        "At rate 1/1 the deviation stands out in every round and stays almost constant, and one "
        "such client does not get the backdoor in.",
        f"malicious deviation over the largest benign one: at least {least:.2f} in every round; "
        f"level {early:.4f} in rounds 1–5, {late:.4f} in rounds 21–{ROUNDS}; backdoor accuracy "
        f"{back:.2f}. (Holds if always above 1, within a factor of 2, below 0.5.)",
        compare(least, ">", 1),
        compare(late / early, ">", 0.5),
        compare(late / early, "<", 2),
        compare(back, "<", 0.5),
    )


def _round(number: float) -> str:
    return f"{number:.0f}" if math.isfinite(number) else "–"


def _list(values: list[float]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)
