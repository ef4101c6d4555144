"""Callbacks follow a run round by round; metrics are callbacks of one function.

A run's own tables, TensorBoard and pictures, and the progress bar of the command line, are made in
the same way as a callback of yours.
"""

from tffl.callbacks.base import Callback, Group, Round, Start
from tffl.callbacks.early_stopping import EarlyStopping
from tffl.callbacks.metric import Metric, metrics

__all__ = ["Callback", "EarlyStopping", "Group", "Metric", "Round", "Start", "metrics"]
