"""How a run is watched on the terminal: warnings, and a line or a bar for its rounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tffl.callbacks.base import Callback, Round, Start
from tffl_cli.console import console, rate
from tffl_cli.tables import words

LINES = 10
"""Lines of progress, at most, of a run whose output is not a terminal."""


class Warnings(Callback):
    """Prints warnings only: the callback of `--json`.

    Attributes:
      title: Which run this is, such as `"undefended"`; empty if there is only one.
    """

    def __init__(self, title: str = "") -> None:
        self.console = console(stderr=True)
        self.title = title

    def start(self, start: Start) -> None:
        """Says so if there is nothing left to do."""
        rounds = start.config.federation.rounds
        if start.first > rounds:
            text = self._titled(f"all {rounds} rounds are finished already: nothing is trained")
            more = "(a larger --rounds continues the run)"
            self.console.print(f"{text[0].upper()}{text[1:]} {more}", markup=False, soft_wrap=True)

    def _titled(self, text: str) -> str:
        return f"{self.title}: {text}" if self.title else text

    def warning(self, text: str) -> None:
        """Prints a warning as one line."""
        self.console.print(words(f"Warning: {text}"), soft_wrap=True)


class Watch(Warnings):
    """Shows the rounds as they pass: a bar on a terminal, at most `LINES` lines elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.rounds = 0
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self.console,
            expand=True,
        )
        self.task = self.bar.add_task("starting", total=None, figures="")

    def titled(self, title: str) -> Watch:
        """Begins to watch another run."""
        self.title = title
        self.bar.reset(self.task, total=None, figures="", description=self._titled("starting"))
        return self

    def __enter__(self) -> Watch:
        """Starts drawing."""
        if self.console.is_terminal:
            self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leaves the last state on the screen."""
        if self.console.is_terminal:
            self.bar.stop()

    def phase(self, text: str) -> None:
        """Names what is being done."""
        self.bar.update(self.task, description=self._titled(text))

    def start(self, start: Start) -> None:
        """Sets the bar's length."""
        super().start(start)
        self.rounds = start.config.federation.rounds
        if start.accuracy is not None and start.first == 1:
            text = self._titled(f"start · accuracy {rate(start.accuracy)}")
            self.console.print(text, markup=False, soft_wrap=True)
        description, done = self._titled("rounds"), start.first - 1
        self.bar.update(self.task, description=description, total=self.rounds, completed=done)

    def round(self, round: Round) -> None:
        """Moves the bar, or prints a line now and then."""
        row, done = round.row, round.number
        self.bar.update(self.task, completed=done)
        if round.evaluated:
            self.bar.update(self.task, figures=figures(row))
        step = math.ceil(self.rounds / LINES)
        if not self.console.is_terminal and (done % step == 0 or done == self.rounds):
            place = f"{self._titled('round')} {done}/{self.rounds}"
            line = " · ".join(filter(None, (place, figures(row))))
            self.console.print(line, markup=False, soft_wrap=True)


@contextmanager
def epochs_shown(
    epochs: int, hidden: bool
) -> Iterator[tuple[Callable[[Mapping[str, float]], None], Callable[[str], None]]]:
    """Shows epochs as they pass; yields a function for each epoch, and one for warnings."""
    watch = Warnings()
    if hidden:
        yield lambda epoch: None, watch.warning
        return
    columns = (TextColumn("epochs"), BarColumn(bar_width=None), MofNCompleteColumn())
    bar = Progress(
        *(*columns, TextColumn("{task.fields[figures]}"), TimeRemainingColumn()),
        console=watch.console,
        expand=True,
    )
    task = bar.add_task("", total=epochs, figures="")
    step = math.ceil(epochs / LINES)

    def after_epoch(epoch: Mapping[str, float]) -> None:
        done = int(epoch["epoch"])
        bar.update(task, completed=done, figures=figures(epoch))
        if not watch.console.is_terminal and (done % step == 0 or done == epochs):
            watch.console.print(f"epoch {done}/{epochs} · {figures(epoch)}", markup=False)

    if watch.console.is_terminal:
        bar.start()
    try:
        yield after_epoch, watch.warning
    finally:
        if watch.console.is_terminal:
            bar.stop()


def figures(row: Mapping[str, Any]) -> str:
    """Writes accuracy and, where it is measured, attack success of a round.

    A ruined model's are dashes.
    """
    shown = [("accuracy", row.get("accuracy")), ("attack success", row.get("attack_success"))]
    return " · ".join(f"{name} {rate(value)}" for name, value in shown if value not in (None, ""))
