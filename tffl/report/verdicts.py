"""What a report tells of a run's verdicts: scores by client and round, ROC, precision–recall."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.drawing.guard import at_edges, is_steep, usual_size
from tffl.report import document, ranking
from tffl.report.document import Block, Plot, Series, Table
from tffl.report.overview import nan, number
from tffl.report.sources import RecordedRun
from tffl.studies.comparison import percent

if TYPE_CHECKING:
    import pandas as pd

AT_EDGES = "Infinite scores are drawn at the upper edge, negative infinite ones at the lower."

SPREAD = 0.32
"""Half the width that the clients of a round take, in rounds."""


def detection_block(run: RecordedRun) -> Block:
    """Counts verdicts over all rounds."""
    clients = run.clients
    malicious, flagged = clients["malicious"] == 1, clients["flagged"] == 1
    rejected = clients["accepted"] == 0
    rows = [
        [kind, *(str(int((mine & one).sum())) for one in (mine, flagged, rejected))]
        for kind, mine in (("malicious", malicious), ("honest", ~malicious))
    ]
    header = ["updates", "sent", "flagged", "left out of the average"]
    return Block(Table("Verdicts over all rounds", header, rows, short=True))


def scores_block(run: RecordedRun) -> Block:
    """Draws the scores, or the sizes of updates where the defense has no scores."""
    clients, column = run.clients, "score" if run.scored else "update_norm"
    label = "score" if run.scored else "norm of the update"
    values = clients[column].to_numpy(float)
    table = _verdict_table(clients, label, values)
    places = _places(clients)
    series = [
        _dots(clients, places, table, values, wrong, flagged)
        for wrong in (False, True)
        for flagged in (False, True)
    ]
    series = [one for one in series if len(one.x)]
    if run.scored and run.rounds["threshold"].notna().any():
        series.append(_threshold(run.rounds))
    title = "Scores of the clients by round" if run.scored else "Norms of the updates by round"
    chart = Plot(title, "round", label, series, log=is_steep(values), linear=usual_size(values))
    note = "" if run.scored else f"{run.config.defense.name} gives clients no scores."
    if np.isinf(values).any():
        note = f"{note} {AT_EDGES}".strip()
    return Block(table, chart, note=note)


def _verdict_table(clients: pd.DataFrame, label: str, values: np.ndarray) -> Table:
    header = ["round", "client", "truth", label, "flagged", "accepted", "samples", "weight"]
    rows, keys = [], []
    told: Any = clients.itertuples()
    for row, value in zip(told, values, strict=True):
        truth = "malicious" if row.malicious else "honest"
        cells = [row.round, row.client, truth, number(value), yes(row.flagged), yes(row.accepted)]
        rows.append([*map(str, cells), str(row.samples), number(row.weight), str(row.reason)])
        keys.append((int(row.client), _verdicts(row)))
    return Table("Verdicts by client", [*header, "reason"], rows, words=(2, 4, 5, 8), keys=keys)


def _verdicts(row: Any) -> str:
    """Returns the words by which a filter finds an update."""
    words = ["flagged" if row.flagged else "passed", "accepted" if row.accepted else "rejected"]
    if bool(row.flagged) != bool(row.malicious):
        words.append("missed" if row.malicious else "blamed")
    return " ".join(words)


def _places(clients: pd.DataFrame) -> np.ndarray:
    """Returns where updates are drawn: the clients of a round side by side, around its number."""
    ids = np.unique(clients["client"])
    offsets = np.linspace(-SPREAD, SPREAD, len(ids)) if len(ids) > 1 else np.zeros(1)
    places = clients["round"].to_numpy(float) + offsets[np.searchsorted(ids, clients["client"])]
    return np.round(places, 4)


def _dots(
    clients: pd.DataFrame,
    places: np.ndarray,
    table: Table,
    values: np.ndarray,
    wrong: bool,
    flagged: bool,
) -> Series:
    mine = (clients["malicious"] == wrong) & (clients["flagged"] == flagged) & ~np.isnan(values)
    rows = np.flatnonzero(mine).tolist()
    kind = "malicious" if wrong else "honest"
    return Series(
        f"{kind}, flagged" if flagged else kind,
        places[rows].tolist(),
        at_edges(values)[rows].tolist(),
        document.RED if wrong else document.BLUE,
        symbol="x" if flagged else "circle",
        dash="",
        hover=[_hover(table.rows[row], table.header) for row in rows],
        rows=rows,
    )


def _threshold(rounds: pd.DataFrame) -> Series:
    """Draws the threshold as wide as the clients of each round."""
    x, y, hover = [], [], []
    for round, value in zip(rounds["round"].tolist(), rounds["threshold"].tolist(), strict=True):
        wide = SPREAD + 0.06
        x += [round - wide, round + wide, round + wide]
        y += [value, value, math.nan]
        hover += [f"round {round}\nthreshold {number(value)}"] * 3
    return Series("threshold", x, y, document.GRAY, symbol="", hover=hover)


def _hover(cells: Sequence[str], header: Sequence[str]) -> str:
    """Says who a point is: client, truth and verdict, score, samples, and the defense's reason."""
    told = dict(zip(header, cells, strict=True))
    value = header[3]
    verdict = "flagged" if told["flagged"] == "yes" else "not flagged"
    verdict += "" if told["accepted"] == "yes" else ", left out"
    lines = [
        f"client {told['client']}, {told['truth']}",
        f"round {told['round']}: {verdict}",
        f"{value} {told[value]}, {told['samples']} samples",
        told["reason"],
    ]
    return "\n".join(filter(None, lines))


def ranking_blocks(run: RecordedRun) -> tuple[list[Block], str]:
    """Draws ROC and precision–recall over all rounds, or says why there are none."""
    malicious = run.clients["malicious"].to_numpy(bool)
    scores = run.clients["score"].to_numpy(float)
    known = ~np.isnan(scores)
    if not known.any():
        return [], f"{run.config.defense.name} gives clients no scores."
    malicious, scores = malicious[known], scores[known]
    if malicious.all() or not malicious.any():
        kind = "malicious" if malicious.any() else "honest"
        return [], f"All scored updates are {kind}: there is nothing to tell apart."
    false, true = ranking.roc(malicious, scores)
    recall, precision, average = ranking.precision_recall(malicious, scores)
    flagged = run.clients["flagged"].to_numpy(bool)[known]
    verdict = _operating_point(malicious, flagged)
    pooled = ranking.area(false, true)
    note = (
        f"Scores of all rounds together: AUC {pooled:.3f}; average precision {average:.3f}. The "
        f"mean of the rounds' own AUCs is {number(run.rounds['auc'].astype(float).mean())}. "
        "The mark is what the defense made of the scores."
    )
    curves = (
        ("ROC", "false positive rate", "true positive rate", false, true, verdict["roc"]),
        ("Precision–recall", "recall", "precision", recall, precision, verdict["pr"]),
    )
    return [
        _tradeoff(*told, note=note if first else "")
        for told, first in zip(curves, (True, False), strict=True)
    ], ""


def _operating_point(malicious: np.ndarray, flagged: np.ndarray) -> dict[str, tuple[float, float]]:
    from tffl.core.metrics import detection

    found = detection(malicious, flagged, np.zeros(len(flagged)))
    recall, precision, fpr = (found[name] for name in ("recall", "precision", "fpr"))
    return {"roc": (nan(fpr), nan(recall)), "pr": (nan(recall), nan(precision))}


def _tradeoff(
    title: str,
    x_label: str,
    y_label: str,
    x: np.ndarray,
    y: np.ndarray,
    point: tuple[float, float],
    note: str,
) -> Block:
    series = [
        Series("thresholds", x.tolist(), y.tolist(), symbol=""),
        Series("verdicts", [point[0]], [point[1]], document.RED, symbol="x", dash=""),
    ]
    rows = [[percent(a), percent(b)] for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    table = Table(f"{title}: every threshold", [x_label, y_label], rows, words=())
    chart = Plot(title, x_label, y_label, series, rates=True, square=True)
    return Block(table, chart, note=note)


def yes(value: Any) -> str:
    """Writes a flag as a word."""
    return "yes" if value else "no"
