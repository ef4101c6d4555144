"""The verdicts of a run in a report: scores by client and round, ROC, precision–recall."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.drawing.guard import at_edges, is_steep, usual_size
from tffl.report import document, ranking
from tffl.report.document import Block, Plot, Series, Table
from tffl.report.overview import float_or_nan, format_number
from tffl.report.sources import RecordedRun
from tffl.studies.comparison import percent

if TYPE_CHECKING:
    import pandas as pd

AT_EDGES = "Infinite scores are drawn at the upper edge, and −∞ at the lower edge."

SPREAD = 0.32
"""Half the width over which the clients of a round are spread, in rounds."""


def detection_block(run: RecordedRun) -> Block:
    """Returns the counts of verdicts over all rounds."""
    clients = run.clients
    malicious, flagged = clients["malicious"] == 1, clients["flagged"] == 1
    rejected = clients["accepted"] == 0
    rows = [
        [kind, *(str(int((group & chosen).sum())) for chosen in (group, flagged, rejected))]
        for kind, group in (("malicious", malicious), ("honest", ~malicious))
    ]
    header = ["updates", "sent", "flagged", "left out of the average"]
    return Block(Table("Verdicts over all rounds", header, rows, short=True))


def scores_block(run: RecordedRun) -> Block:
    """Returns the chart of scores, or of update norms if the defense gives no scores."""
    clients, column = run.clients, "score" if run.scored else "update_norm"
    label = "score" if run.scored else "norm of the update"
    values = clients[column].to_numpy(float)
    table = _verdict_table(clients, label, values)
    places = _places(clients)
    series = [
        _dots(clients, places, table, values, malicious, flagged)
        for malicious in (False, True)
        for flagged in (False, True)
    ]
    series = [dots for dots in series if len(dots.x)]
    if run.scored and run.rounds["threshold"].notna().any():
        series.append(_threshold(run.rounds))
    title = "Scores of the clients by round" if run.scored else "Norms of the updates by round"
    chart = Plot(title, "round", label, series, log=is_steep(values), linear=usual_size(values))
    note = "" if run.scored else f"{run.config.defense.name} does not score clients."
    if np.isinf(values).any():
        note = f"{note} {AT_EDGES}".strip()
    return Block(table, chart, note=note)


def _verdict_table(clients: pd.DataFrame, label: str, values: np.ndarray) -> Table:
    header = ["round", "client", "truth", label, "flagged", "accepted", "samples", "weight"]
    rows, keys = [], []
    updates: Any = clients.itertuples()
    for row, value in zip(updates, values, strict=True):
        truth = "malicious" if row.malicious else "honest"
        verdict = [yes_or_no(row.flagged), yes_or_no(row.accepted)]
        cells = [str(row.round), str(row.client), truth, format_number(value), *verdict]
        rows.append([*cells, str(row.samples), format_number(row.weight), str(row.reason)])
        keys.append((int(row.client), _filter_words(row)))
    return Table("Verdicts by client", [*header, "reason"], rows, words=(2, 4, 5, 8), keys=keys)


def _filter_words(row: Any) -> str:
    """Returns the words that the verdict filter matches."""
    words = ["flagged" if row.flagged else "passed", "accepted" if row.accepted else "rejected"]
    if bool(row.flagged) != bool(row.malicious):
        words.append("missed" if row.malicious else "blamed")
    return " ".join(words)


def _places(clients: pd.DataFrame) -> np.ndarray:
    """Returns the x positions of updates: the clients of a round side by side around its number."""
    ids = np.unique(clients["client"])
    offsets = np.linspace(-SPREAD, SPREAD, len(ids)) if len(ids) > 1 else np.zeros(1)
    places = clients["round"].to_numpy(float) + offsets[np.searchsorted(ids, clients["client"])]
    return np.round(places, 4)


def _dots(
    clients: pd.DataFrame,
    places: np.ndarray,
    table: Table,
    values: np.ndarray,
    malicious: bool,
    flagged: bool,
) -> Series:
    group = (clients["malicious"] == malicious) & (clients["flagged"] == flagged)
    rows = np.flatnonzero(group & ~np.isnan(values)).tolist()
    kind = "malicious" if malicious else "honest"
    return Series(
        f"{kind}, flagged" if flagged else kind,
        places[rows].tolist(),
        at_edges(values)[rows].tolist(),
        document.RED if malicious else document.BLUE,
        symbol="x" if flagged else "circle",
        dash="",
        hover=[_hover_text(table.rows[row], table.header) for row in rows],
        rows=rows,
    )


def _threshold(rounds: pd.DataFrame) -> Series:
    """Returns the threshold of each round as a horizontal line across its clients."""
    x, y, hover = [], [], []
    for round, value in zip(rounds["round"].tolist(), rounds["threshold"].tolist(), strict=True):
        half_width = SPREAD + 0.06
        x += [round - half_width, round + half_width, round + half_width]
        y += [value, value, math.nan]
        hover += [f"round {round}\nthreshold {format_number(value)}"] * 3
    return Series("threshold", x, y, document.GRAY, symbol="", hover=hover)


def _hover_text(cells: Sequence[str], header: Sequence[str]) -> str:
    """Returns the text of a point: client, truth, verdict, score, samples, and the reason."""
    row = dict(zip(header, cells, strict=True))
    label = header[3]
    verdict = "flagged" if row["flagged"] == "yes" else "not flagged"
    verdict += "" if row["accepted"] == "yes" else ", left out"
    lines = [
        f"client {row['client']}, {row['truth']}",
        f"round {row['round']}: {verdict}",
        f"{label} {row[label]}, {row['samples']} samples",
        row["reason"],
    ]
    return "\n".join(filter(None, lines))


def ranking_blocks(run: RecordedRun) -> tuple[list[Block], str]:
    """Returns the ROC and precision–recall curves over all rounds, or the reason without them."""
    malicious = run.clients["malicious"].to_numpy(bool)
    scores = run.clients["score"].to_numpy(float)
    known = ~np.isnan(scores)
    if not known.any():
        return [], f"{run.config.defense.name} does not score clients."
    malicious, scores = malicious[known], scores[known]
    if malicious.all() or not malicious.any():
        kind = "malicious" if malicious.any() else "honest"
        return [], f"All scored updates are {kind}, so there is no ROC curve."
    false, true = ranking.roc(malicious, scores)
    recall, precision, average = ranking.precision_recall(malicious, scores)
    flagged = run.clients["flagged"].to_numpy(bool)[known]
    verdict = _operating_point(malicious, flagged)
    pooled = ranking.area(false, true)
    mean_auc = f"{run.rounds['auc'].astype(float).mean():.3f}"
    note = (
        f"The scores of all rounds together have an AUC of {pooled:.3f} and an average precision "
        f"of {average:.3f}; the mean AUC of the single rounds is {mean_auc}. The cross marks the "
        "verdicts of the defense."
    )
    curves = (
        ("ROC", "false positive rate", "true positive rate", false, true, verdict["roc"]),
        ("Precision–recall", "recall", "precision", recall, precision, verdict["pr"]),
    )
    return [
        _curve_block(*curve, note=note if first else "")
        for curve, first in zip(curves, (True, False), strict=True)
    ], ""


def _operating_point(malicious: np.ndarray, flagged: np.ndarray) -> dict[str, tuple[float, float]]:
    from tffl.core.metrics import detection

    found = detection(malicious, flagged, np.zeros(len(flagged)))
    recall, precision, fpr = (found[name] for name in ("recall", "precision", "fpr"))
    fpr, recall, precision = map(float_or_nan, (fpr, recall, precision))
    return {"roc": (fpr, recall), "pr": (recall, precision)}


def _curve_block(
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
    table = Table(f"{title} at every threshold", [x_label, y_label], rows, words=())
    chart = Plot(title, x_label, y_label, series, rates=True, square=True)
    return Block(table, chart, note=note)


def yes_or_no(value: Any) -> str:
    """Formats a flag as a word."""
    return "yes" if value else "no"
