"""What the papers and tffl's own design claim of heat-map detectors, and what was measured."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tffl.studies.benchmark_table import percent
from tffl.studies.pages.builder import CONSENSUS_TESTS as TESTS
from tffl.studies.pages.heat_maps_tables import CLIENTS, harmful
from tffl.studies.pages.verdicts import Judged, compare, judged

if TYPE_CHECKING:
    import pandas as pd

QUARTER = 0.25


def claims(rows: pd.DataFrame, blamed: pd.DataFrame, runs: pd.DataFrame) -> Iterator[Judged]:
    """Yields every claim with its verdict.

    Args:
      rows: Means of the replays.
      blamed: Honest clients that were blamed without an attack.
      runs: Whole runs, with the accuracy that they lost.
    """
    found = harmful(rows)
    share = found["malicious"] / CLIENTS
    uneven = found["setting"].str.contains("0.1", regex=False)
    few, many = found[(share <= QUARTER) & ~uneven], found[share > QUARTER]
    for name in ("gradcam-ae", "layercam-ae", "gradcam-krum"):
        yield published_finds_most(found, name)
    for name in ("cam-consensus", "update-consensus", "probe-loss", TESTS):
        yield blames_few(blamed, name)
    yield consensus_ranks_better(found)
    root, duplicates = f"{TESTS}, root data", f"{TESTS}, near-duplicates allowed"
    yield finds_nearly_all(few, TESTS, "with up to 25 % attackers and Dirichlet ≥ 0.5")
    yield finds_nearly_all(few, duplicates, "the same without the test for near-duplicates")
    yield finds_nearly_all(many, TESTS, "with 40 % attackers")
    yield finds_nearly_all(many, root, "with 40 % attackers and trusted root data")
    yield keeps_a_round(few)
    yield keeps_whole_runs(runs)


def published_finds_most(found: pd.DataFrame, name: str) -> Judged:
    """A detector as published finds most attackers behind harmful attacks."""
    recall, fpr = _mean(found, name, "recall"), _mean(found, name, "fpr")
    return judged(
        f"`{name}` as published finds most attackers behind harmful attacks, with few false "
        "positives",
        f"recall {percent(recall, 0)} %, FPR {percent(fpr, 0)} %",
        compare(recall, ">=", 0.9),
        compare(fpr, "<=", 0.05),
    )


def blames_few(blamed: pd.DataFrame, name: str) -> Judged:
    """A detector hardly blames honest clients."""
    mine = blamed[blamed["defense"] == name]
    count, honest = int(mine["blamed"].sum()), int(mine["honest"].sum())
    share = count / honest if honest else math.nan
    return judged(
        f"{name}: at most 1 % of honest clients blamed without an attacker",
        f"{percent(share, 1)} %: {count} of {honest:,} client-rounds",
        compare(share, "<=", 0.01),
    )


def consensus_ranks_better(found: pd.DataFrame) -> Judged:
    """Comparing clients' maps with each other beats an autoencoder of them."""
    published = max(_mean(found, name, "auc") for name in ("gradcam-ae", "layercam-ae"))
    ours = _mean(found, "cam-consensus", "auc")
    return judged(
        "Comparing maps with the clients' consensus ranks attackers better than the published "
        "autoencoders do",
        f"AUC {ours:.2f} against {published:.2f}",
        compare(ours, ">", published),
    )


def finds_nearly_all(found: pd.DataFrame, name: str, where: str) -> Judged:
    """Some tests find nearly all attackers behind harmful attacks, and blame few others."""
    recall, fpr = _mean(found, name, "recall"), _mean(found, name, "fpr")
    return judged(
        f"{TESTS}: recall ≥ 95 %, FPR ≤ 2 %, {where}",
        f"recall {percent(recall, 1)} %, FPR {percent(fpr, 1)} %",
        compare(recall, ">=", 0.95),
        compare(fpr, "<=", 0.02),
    )


def keeps_a_round(few: pd.DataFrame) -> Judged:
    """The consensus tests lose hardly any accuracy in a round."""
    lost = _mean(few, TESTS, "lost")
    return judged(
        f"{TESTS}: a round stays within 1.5 points of the honest one, with up to 25 % attackers",
        f"{100 * lost:.1f} points lost on average",
        compare(lost, "<=", 0.015),
    )


def keeps_whole_runs(runs: pd.DataFrame) -> Judged:
    """The consensus tests lose hardly any accuracy in a whole run."""
    claim = (
        f"{TESTS}: accuracy ends within 1.5 points of the attack-free run, with 25 % attackers, "
        "whatever the attack"
    )
    if runs.empty:
        return judged(claim, "no whole run is recorded", None)
    lost = runs[runs["defense"] == TESTS].groupby("attack")["lost"].mean()
    worst = float(lost.max())
    return judged(
        claim,
        f"at worst {100 * worst:.1f} points lost ({lost.idxmax()}), on average "
        f"{100 * lost.mean():.1f}",
        compare(worst, "<=", 0.015),
    )


def _mean(frame: pd.DataFrame, defense: str, column: str) -> float:
    return float(frame[frame["defense"] == defense][column].mean())
