"""Averages of the metrics that the nodes report."""

from __future__ import annotations

from flwr.app import MetricRecord, RecordDict


def average(contents: list[RecordDict], weighted_by_key: str) -> MetricRecord:
    """Averages metrics, weighted by the claimed samples.

    Each metric is averaged over the replies that hold it as a finite number. Unlike Flower's own
    function, this one accepts replies with different metrics.

    Args:
      contents: The contents of replies, each with one MetricRecord and a valid sample count.
      weighted_by_key: The name of the sample count.
    """
    sums: dict[str, float] = {}
    totals: dict[str, float] = {}
    for content in contents:
        record = next(iter(content.metric_records.values()))
        weight = float(record[weighted_by_key])  # type: ignore[arg-type]
        for key, value in record.items():
            if key == weighted_by_key or not isinstance(value, int | float):
                continue
            if abs(value) < 1e300:  # excludes NaN, and values whose sum could overflow
                sums[key] = sums.get(key, 0.0) + weight * float(value)
                totals[key] = totals.get(key, 0.0) + weight
    return MetricRecord({key: sums[key] / totals[key] for key in sums})
