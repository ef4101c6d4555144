"""Which rows of `rounds.csv` say something of the global model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def measured(rounds: pd.DataFrame, column: str) -> pd.DataFrame:
    """Returns the rounds without those in which a column was not meant to have a value.

    What stays undefined is undefined in a round that was evaluated, such as a ruined model's
    accuracy.

    Args:
      rounds: The columns of `rounds.csv`; without `evaluate_seconds`, every round counts.
      column: One of them.
    """
    if "evaluate_seconds" not in rounds:
        return rounds
    return rounds[rounds[column].notna() | rounds["evaluate_seconds"].notna()]
