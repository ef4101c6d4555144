"""Writes a run, so that an interruption at any moment loses one round at most.

The order of writing is the contract: tables first, then the checkpoint. On resuming, whatever is
newer than the newest valid checkpoint is dropped, and those rounds are run again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.callbacks.base import Round
from tffl.config import Config, load
from tffl.core.atomic import TEMPORARY, remove, remove_left_overs, write_text
from tffl.core.deviations import deviations
from tffl.core.errors import TfflError, UsageError, require
from tffl.core.jsonable import write_json
from tffl.core.tensors import read_tensors, write_tensors
from tffl.core.updates import Updates
from tffl.core.verdict import Shown
from tffl.record.drawings import Curves, HeatMapDrawing, TensorBoardLog
from tffl.record.environment import environment
from tffl.record.identity import differences_but_end
from tffl.record.lock import LOCK
from tffl.record.recorder import Recorder
from tffl.record.run_directory import (
    CHECKPOINTS,
    DEVIATIONS,
    FIGURES,
    PICTURES,
    UPDATES,
    RunDirectory,
    picture_files,
    round_file,
    round_files,
)
from tffl.record.shown import to_arrays
from tffl.record.tables import RunTables, to_csv

if TYPE_CHECKING:
    import keras

    from tffl.defenses.exports import DetectorExport

CHECKPOINTS_KEPT = 2


class RunWriter(Recorder):
    """Writes a run into its folder. Make one with `create`, or continue one with `resume`.

    Attributes:
      run: What has been written.
      path: The folder.
      config: The experiment.
    """

    path: Path

    def __init__(self, run: RunDirectory) -> None:
        super().__init__(run.path, run.tables)
        self.run = run
        self.config = run.config
        self.callbacks += [HeatMapDrawing(run), TensorBoardLog(run), Curves(run)]

    def round(self, round: Round) -> None:
        """Keeps a round: its tables, deviations, and what the config and the defense add.

        Raises:
          TfflError: A file cannot be written.
        """
        if len(round.groups) == len(round.weights) == 1:
            self.store_updates(round.updates)
            self.store_pictures(round.number, round.updates.client_ids, round.verdict.shown)
        if round.groups:
            self.store_deviations(round)
        self.write_round(round.row, round.client_rows)

    @classmethod
    def create(
        cls,
        path: Path,
        config: Config,
        command: Sequence[str],
        granted: Mapping[str, Any],
        data: str = "",
    ) -> RunWriter:
        """Makes a folder for a run, and writes `environment.json` and `config.toml` into it.

        Args:
          path: The folder; it may exist if it is empty.
          config: The experiment.
          command: The command line that started it.
          granted: What attack and defense know beyond what they observe, for the record.
          data: Fingerprint of the dataset, for `check_data`.

        Raises:
          UsageError: The folder holds a run already, or something else, or cannot be made.
          TfflError: The files cannot be written.
        """
        path = Path(path)
        refuse_occupied(path, config)
        make_folder(path)
        facts = {**environment(command), "data_sha256": data, "granted": dict(granted)}
        write_json(path / "environment.json", facts)
        write_text(path / "config.toml", config.to_toml())  # last: it marks the folder as a run
        return cls(RunDirectory(path, config, RunTables()))

    @classmethod
    def resume(cls, path: Path, config: Config | None = None) -> RunWriter:
        """Opens a run to continue it.

        Args:
          path: The run's folder.
          config: If given, it must describe the experiment that the folder holds. It may end
            earlier or later, if no learning rate depends on that.

        Raises:
          UsageError: The folder holds no run, or another experiment, or more rounds than that.
          TfflError: A table is damaged, or lacks rounds that there is a checkpoint of.
        """
        run = RunDirectory.open(path)
        return cls(run if config is None else _with_end_of(run, config))

    def check_data(self, fingerprint: str) -> None:
        """Refuses to go on with other data than the run began with.

        Args:
          fingerprint: Of the dataset as it is now. Where it was not recorded, any will do.

        Raises:
          UsageError: The data have changed.
        """
        try:
            text = (self.path / "environment.json").read_text(encoding="utf-8")
            began_with = json.loads(text).get("data_sha256")
        except (OSError, ValueError, AttributeError):
            return
        require(
            not began_with or began_with == fingerprint,
            f"{self.config.data.dataset} has changed since {self.path} began: restore the data, or "
            "begin another run with --out",
        )

    def write_config(self) -> None:
        """Writes `config.toml` again, where the run has got another end.

        Raises:
          TfflError: It cannot be written.
        """
        if load(self.path / "config.toml") != self.config:
            write_text(self.path / "config.toml", self.config.to_toml())

    def write_round(
        self, round_row: Mapping[str, Any], client_rows: Sequence[Mapping[str, Any]]
    ) -> None:
        """Adds a round to both tables.

        Raises:
          TfflError: A file cannot be written; the older one stays as it was.
        """
        super().write_round(round_row, client_rows)
        self.tables.write(self.path)

    def change_round(self, round_row: Mapping[str, Any]) -> None:
        """Replaces the row of the last round in `rounds.csv`.

        Raises:
          TfflError: The file cannot be written; the older one stays as it was.
        """
        super().change_round(round_row)
        self.tables.write(self.path)

    def save_checkpoint(
        self, round: int, weights: np.ndarray, memory: Mapping[str, np.ndarray]
    ) -> None:
        """Writes what the next round starts from, and keeps the checkpoint before it as well.

        Args:
          round: The round that has just been written with `write_round`.
          weights: Global weights, float32 `[models, d]`.
          memory: What attackers and defense remember; no key is `weights`.

        Raises:
          TfflError: It cannot be written; older checkpoints stay.
        """
        tensors = {"weights": weights, **memory}
        write_tensors(round_file(self.path / CHECKPOINTS, round), tensors, {"round": str(round)})
        files = round_files(self.path / CHECKPOINTS)
        for old in list(files)[:-CHECKPOINTS_KEPT]:
            remove(files[old])

    def load_checkpoint(
        self, warn: Callable[[str], None]
    ) -> tuple[int, np.ndarray, dict[str, np.ndarray]] | None:
        """Goes back to the newest valid checkpoint and drops everything that is newer.

        Args:
          warn: Called with one line for every checkpoint that is damaged.

        Returns:
          Its round, weights float32 `[models, d]` and memory; None if there is none, and then the
          tables are empty again.

        Raises:
          TfflError: The tables lack rounds that the checkpoint has behind it.
        """
        files = round_files(self.path / CHECKPOINTS)
        for round, file in reversed(files.items()):
            try:
                tensors, _ = read_tensors(file)
            except TfflError as error:
                last = round == min(files)
                warn(f"{error}; {'starting over' if last else 'using the checkpoint before it'}")
                continue
            _check_rounds(self.run, round)
            self._drop_after(round)
            return round, tensors.pop("weights"), tensors
        self._drop_after(0)
        return None

    def store_updates(self, updates: Updates) -> None:
        """Keeps a round's updates, if `record.store_updates` names the round.

        Raises:
          TfflError: The file cannot be written.
        """
        if updates.round not in self.config.record.stored_rounds(self.config.federation.rounds):
            return
        layout = [[e.name, list(e.shape), e.trainable] for e in updates.layout.entries]
        write_tensors(
            round_file(self.path / UPDATES, updates.round),
            {
                "start": updates.start,
                "deltas": updates.deltas,
                "client_ids": updates.client_ids,
                "sample_counts": updates.sample_counts,
            },
            {"round": str(updates.round), "layout": json.dumps(layout)},
        )

    def store_deviations(self, round: Round) -> None:
        """Keeps how far each client's variables were from the others'.

        Raises:
          TfflError: The file cannot be written.
        """
        updates = [group.updates for group in round.groups]
        names = [entry.name for entry in updates[0].layout.entries]
        tensors = {
            "client_ids": np.concatenate([each.client_ids for each in updates]),
            "deviations": np.concatenate([deviations(each) for each in updates]),
        }
        header = {"round": str(round.number), "names": json.dumps(names)}
        write_tensors(round_file(self.path / DEVIATIONS, round.number), tensors, header)

    def store_pictures(self, round: int, client_ids: np.ndarray, shown: Sequence[Shown]) -> None:
        """Keeps what a defense shows of a round, such as heat maps, if it shows anything.

        Args:
          round: 1-based.
          client_ids: int64 `[n]`.
          shown: What it shows.

        Raises:
          TfflError: The file cannot be written.
        """
        if shown:
            tensors = {"client_ids": client_ids, **to_arrays(shown)}
            write_tensors(round_file(self.path / PICTURES, round), tensors, {"round": str(round)})

    def write_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes a further CSV file, `name`, into the folder; `rows` is not empty.

        Raises:
          TfflError: It cannot be written.
        """
        write_text(self.path / name, to_csv(list(rows[0]), rows))

    def finish(
        self,
        model: keras.Model,
        summary: Mapping[str, Any],
        detectors: Mapping[str, DetectorExport],
    ) -> None:
        """Writes `summary.json`, and the exports that the config asks for.

        Raises:
          TfflError: A file cannot be written.
        """
        from tffl.record import export

        write_json(self.path / "summary.json", summary)
        if self.config.record.export:
            export.export(model, self.path / "export")
            for name, detector in detectors.items():
                export.export_detector(detector, self.path / "export" / name)

    def _drop_after(self, last: int) -> None:
        """Deletes what belongs to rounds after `last`, and what killed writes have left."""
        for name in ("rounds.csv", "clients.csv"):
            remove_left_overs(self.path / name)
        for folder in (CHECKPOINTS, UPDATES, DEVIATIONS, PICTURES, FIGURES, "export"):
            remove_left_overs(self.path / folder / "*")
        for folder in (CHECKPOINTS, UPDATES, DEVIATIONS, PICTURES):
            for round, file in round_files(self.path / folder).items():
                if round > last:
                    remove(file)
        for round in range(last + 1, self.config.federation.rounds + 1):
            for _, file in picture_files(self.path / FIGURES, round):
                remove(file)
        tables = self.tables
        if max([0, *tables.rounds.rounds, *tables.clients.rounds]) > last:
            tables.keep(last)
            tables.write(self.path)


def _with_end_of(run: RunDirectory, config: Config) -> RunDirectory:
    """Returns a run with the end of a config that describes the same experiment otherwise."""
    rounds, played = config.federation.rounds, max(run.tables.rounds.rounds, default=0)
    if differing := differences_but_end(run.config, config):
        raise UsageError(f"{run.path} holds another experiment: {differing}; choose another --out")
    require(
        rounds >= played,
        f"{run.path} has played {played} rounds already, which --rounds {rounds} cannot take "
        "back: ask for as many or more, or choose another --out",
    )
    if kept := round_files(run.path / CHECKPOINTS):
        _check_rounds(run, min(kept))
    return replace(run, config=run.config.with_rounds(rounds))


def _check_rounds(run: RunDirectory, last: int) -> None:
    """Raises `TfflError` if one of the rounds up to `last` is not in the tables."""
    tables, played = run.tables, set(range(1, last + 1))
    for name, table, expected in (
        ("rounds.csv", tables.rounds, played),
        ("clients.csv", tables.clients, played - tables.skipped()),
    ):
        missing = sorted(expected - set(table.rounds))
        if missing:
            raise TfflError(
                f"{run.path / name} lacks round {missing[0]}, but there is a checkpoint of "
                f"round {last}: restore the file, or run again with another --out"
            )


def make_folder(path: Path) -> None:
    """Makes the folder of a run; it may be there.

    Raises:
      UsageError: It cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the run folder {path}: {error.strerror}") from None


def refuse_occupied(path: Path, config: Config) -> None:
    """Refuses a folder in which a new run would be in the way of something.

    Raises:
      UsageError: It holds a run already, or something else, or is a file.
    """
    require(
        not path.exists() or path.is_dir(), f"{path} is a file: choose another folder for --out"
    )
    above = next(parent for parent in path.absolute().parents if parent.exists())
    require(above.is_dir(), f"{path} lies in {above}, which is a file: choose another --out")
    if (path / "config.toml").exists():
        stored, rounds = load(path / "config.toml"), config.federation.rounds
        differing = differences_but_end(stored, config)
        end = f" --rounds {rounds}" if rounds != stored.federation.rounds else ""
        raise UsageError(
            f"{path} holds another experiment: {differing}; choose another --out"
            if differing
            else f"{path} holds this run already: continue it with --resume {path}{end}"
        )
    try:
        names = [file.name for file in path.iterdir()] if path.exists() else []
    except OSError as error:
        raise UsageError(f"cannot read the folder {path}: {error.strerror}") from None
    # A run that was killed while it was being created leaves these.
    own = ("environment.json", LOCK)
    foreign = [n for n in names if n not in own and not n.startswith(TEMPORARY)]
    require(
        not foreign,
        f"{path} is not empty and holds no run: choose another folder for --out, or empty it",
    )
