"""The last round, and means over the rounds: `summary.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from tffl.attacks import SuccessSet
from tffl.config import Config


def summarize(
    config: Config,
    rounds: pd.DataFrame,
    parameters: int,
    who: Mapping[str, list[int]],
    success: SuccessSet | None,
) -> dict[str, Any]:
    """Sums a run up.

    Args:
      config: The experiment.
      rounds: One row per round, the columns of `rounds.csv`.
      parameters: d, of one global model.
      who: `malicious_clients`, and of those the `acting_clients`.
      success: What attack success was measured with.
    """
    final = rounds.iloc[-1]
    last = ("accuracy", "loss", "attack_success", "attack_loss")
    means = ("recall", "precision", "fpr", "f1", "balanced_accuracy", "auc")
    return {
        "dataset": config.data.dataset,
        "model": config.model.name,
        "parameters": parameters,
        "attack": config.attack.name,
        "defense": config.defense.name,
        "rounds": len(rounds),
        "clients": config.federation.clients,
        **who,
        **{name: _number(final[name]) for name in last},
        "attack_success_source": success.source if success else None,
        "attack_success_images": len(success.targets) if success else None,
        **{f"mean_{name}": _number(rounds[name].astype(float).mean()) for name in means},
        "rejected": int(rounds["rejected"].sum()),
        **_absences(config, rounds),
    }


def _absences(config: Config, rounds: pd.DataFrame) -> dict[str, int]:
    """Returns how many answers and rounds are missing, if clients may drop out."""
    if not config.federation.dropout:
        return {}
    return {
        "dropped": int(rounds["dropped"].sum()),
        "skipped_rounds": int(rounds["skipped"].sum()),
    }


def _number(value: Any) -> float | None:
    return None if value is None or pd.isna(value) else float(value)
