"""From a name and options to a defense."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tffl.core.errors import TfflError
from tffl.defenses.base import Defense
from tffl.defenses.registry import defenses
from tffl.defenses.wrapper import wrap


def create_defense(name: str, options: Mapping[str, Any]) -> Defense:
    """Builds a defense, or one behind others as in `nnm+krum`, from user-given options.

    Raises:
      UsageError: A name or an option does not exist, a value is out of its range, or the parts do
        not go together.
    """
    return wrap(name, defenses.create_parts(name, options))


def score_name(name: str, otherwise: str) -> str:
    """Returns what the scores of a named defense measure; `otherwise` where it does not say.

    >>> score_name("gradcam-krum", "score"), score_name("nnm+krum", "score")
    ('Krum score', 'score')
    """
    try:
        return getattr(defenses[name], "score_name", "") or otherwise
    except TfflError:  # several joined by `+`, or a plug-in that is not installed here
        return otherwise
