"""What a run leaves behind, written so that an interruption at any moment loses one round at most.

The order of writing is the contract: tables first, then the checkpoint. On resuming, whatever is
newer than the newest valid checkpoint is dropped, and those rounds are run again.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.config import Config, load
from tffl.core.atomic import TEMPORARY, remove, remove_left_overs, write_text
from tffl.core.deviations import Deviations
from tffl.core.errors import TfflError, UsageError, require
from tffl.core.jsonable import write_json
from tffl.core.layout import Entry, WeightLayout
from tffl.core.tensors import read_tensors, write_tensors
from tffl.core.updates import Updates
from tffl.record.identity import identity
from tffl.record.lock import LOCK
from tffl.record.tables import CLIENT_COLUMNS, ROUND_COLUMNS, Table, to_csv
from tffl.record.tensorboard import EventLog

if TYPE_CHECKING:
    import keras
    import pandas as pd

    from tffl.defenses.exports import DetectorExport

CHECKPOINTS_KEPT = 2

PICTURES = "heat_maps"
"""Folder of what a defense looked at."""

FIGURES = "figures"
"""Folder of what a person looks at."""


class MemoryRecorder:
    """Keeps the rows of a run and nothing else, for runs without an output folder."""

    def __init__(self) -> None:
        self._rounds = Table(ROUND_COLUMNS)
        self._clients = Table(CLIENT_COLUMNS)
        self._deviations: list[Deviations] = []

    def write_round(
        self, round_row: Mapping[str, Any], client_rows: Sequence[Mapping[str, Any]]
    ) -> None:
        """Adds a round: its row of `ROUND_COLUMNS`, and one of `CLIENT_COLUMNS` per client."""
        round = int(round_row["round"])
        self._rounds.append(round, [round_row])
        self._clients.append(round, client_rows)

    def save_checkpoint(
        self, round: int, weights: np.ndarray, memory: Mapping[str, np.ndarray]
    ) -> None:
        """Does nothing: there is nowhere to resume from."""

    def load_checkpoint(
        self, warn: Callable[[str], None]
    ) -> tuple[int, np.ndarray, dict[str, np.ndarray]] | None:
        """Returns None: the run starts at round 1."""
        return None

    def store_updates(self, updates: Updates) -> None:
        """Does nothing."""

    def store_deviations(
        self, round: int, client_ids: np.ndarray, deviations: np.ndarray, names: Sequence[str]
    ) -> None:
        """Keeps what `tffl.core.deviations.deviations` returned; `names` are the variables'."""
        self._deviations.append(Deviations(round, client_ids, tuple(names), deviations))

    def store_pictures(
        self, round: int, client_ids: np.ndarray, pictures: Mapping[str, np.ndarray]
    ) -> None:
        """Does nothing."""

    def write_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Does nothing."""

    def finish(
        self,
        model: keras.Model,
        summary: Mapping[str, Any],
        detectors: Mapping[str, DetectorExport],
    ) -> None:
        """Does nothing."""

    def frames(self, first: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Returns `rounds.csv` and `clients.csv` as pandas reads them, from round `first` on.

        A round must not become slower with every round before it: parse what is new only.
        """
        return self._rounds.frame(first), self._clients.frame(first)

    def deviations(self) -> list[Deviations]:
        """Returns the deviations of all rounds that have them, in order."""
        return list(self._deviations)


class RunDirectory(MemoryRecorder):
    """A folder that holds one run. Make one with `create`, or open one with `resume`."""

    def __init__(self, path: Path, config: Config) -> None:
        super().__init__()
        self.path = path
        self.config = config
        self._events = EventLog(self.path / "tensorboard")

    @classmethod
    def create(
        cls, path: Path, config: Config, command: Sequence[str], granted: Mapping[str, Any]
    ) -> RunDirectory:
        """Makes a folder for a run, and writes `environment.json` and `config.toml` into it.

        Args:
          path: The folder; it may exist if it is empty.
          config: The experiment.
          command: The command line that started it.
          granted: What attack and defense were told beyond what they could observe.

        Raises:
          UsageError: The folder holds a run already, or something else, or cannot be made.
          TfflError: The files cannot be written.
        """
        path = Path(path)
        refuse_occupied(path, config)
        make_folder(path)
        write_json(path / "environment.json", {**environment(command), "granted": dict(granted)})
        write_text(path / "config.toml", config.to_toml())  # last: it marks the folder as a run
        return cls(path, config)

    @classmethod
    def resume(cls, path: Path, config: Config | None = None) -> RunDirectory:
        """Opens a run to continue or to read it.

        Args:
          path: The run's folder.
          config: If given, it must describe the experiment that the folder holds. It may end
            earlier or later, if no learning rate depends on that.

        Raises:
          UsageError: The folder holds no run, or another experiment, or more rounds than that.
          TfflError: A table is damaged, or lacks rounds that there is a checkpoint of.
        """
        path = Path(path)
        if not (path / "config.toml").is_file():
            inner = sorted(str(file.parent) for file in path.glob("*/config.toml"))
            hint = f"did you mean {' or '.join(inner)}?" if inner else "check the path"
            raise UsageError(f"{path} holds no run (no config.toml): {hint}")
        run = cls(path, load(path / "config.toml"))
        run._rounds = Table.read(path / "rounds.csv", ROUND_COLUMNS)
        run._clients = Table.read(path / "clients.csv", CLIENT_COLUMNS)
        if config is not None:
            run._continue_as(config)
        return run

    def _continue_as(self, config: Config) -> None:
        """Takes over the end of a config that describes the same experiment otherwise."""
        rounds, played = config.federation.rounds, max(self._rounds.rounds, default=0)
        if differing := _differences_but_end(self.config, config):
            raise UsageError(
                f"{self.path} holds another experiment: {differing}; choose another --out"
            )
        require(
            rounds >= played,
            f"{self.path} has played {played} rounds already, which --rounds {rounds} cannot take "
            "back: ask for as many or more, or choose another --out",
        )
        if kept := round_files(self.path / "checkpoints"):
            self._check_rounds(min(kept))
        self.config = self.config.with_rounds(rounds)

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
        """Adds a round to both tables and to TensorBoard, and draws its heat maps if they are due.

        Raises:
          TfflError: A file cannot be written; the older one stays as it was.
        """
        super().write_round(round_row, client_rows)
        self._write_tables()
        self._draw(int(round_row["round"]))
        self._write_events()

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
        write_tensors(_round_file(self.path / "checkpoints", round), tensors, {"round": str(round)})
        files = round_files(self.path / "checkpoints")
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
        files = round_files(self.path / "checkpoints")
        for round, file in reversed(files.items()):
            try:
                tensors, _ = read_tensors(file)
            except TfflError as error:
                last = round == min(files)
                warn(f"{error}; {'starting over' if last else 'using the checkpoint before it'}")
                continue
            self._check_rounds(round)
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
            _round_file(self.path / "updates", updates.round),
            {
                "start": updates.start,
                "deltas": updates.deltas,
                "client_ids": updates.client_ids,
                "sample_counts": updates.sample_counts,
            },
            {"round": str(updates.round), "layout": json.dumps(layout)},
        )

    def store_deviations(
        self, round: int, client_ids: np.ndarray, deviations: np.ndarray, names: Sequence[str]
    ) -> None:
        """Keeps a round's deviations in a file.

        Raises:
          TfflError: The file cannot be written.
        """
        write_tensors(
            _round_file(self.path / "deviations", round),
            {"client_ids": client_ids, "deviations": deviations},
            {"round": str(round), "names": json.dumps(list(names))},
        )

    def store_pictures(
        self, round: int, client_ids: np.ndarray, pictures: Mapping[str, np.ndarray]
    ) -> None:
        """Keeps what a defense shows of a round, such as heat maps, if it shows anything.

        Args:
          round: 1-based.
          client_ids: int64 `[n]`.
          pictures: `Verdict.pictures`.

        Raises:
          TfflError: The file cannot be written.
        """
        if pictures:
            tensors = {"client_ids": client_ids, **pictures}
            write_tensors(_round_file(self.path / PICTURES, round), tensors, {"round": str(round)})

    def pictures(self, round: int) -> dict[str, np.ndarray]:
        """Returns what `store_pictures` kept of a round, with the `client_ids`; empty if nothing.

        Raises:
          TfflError: The file is damaged.
        """
        file = _round_file(self.path / PICTURES, round)
        return read_tensors(file)[0] if file.exists() else {}

    def deviations(self) -> list[Deviations]:
        """Reads the deviations of all rounds that have them, in order.

        Raises:
          TfflError: A file is damaged.
        """
        return [_read_deviations(file) for file in round_files(self.path / "deviations").values()]

    def updates(self) -> Iterator[Updates]:
        """Reads the stored updates, one round at a time, in order.

        Raises:
          TfflError: A file is damaged.
        """
        for file in round_files(self.path / "updates").values():
            yield load_updates(file)

    def stored(self, round: int) -> Updates:
        """Reads the stored updates of one round.

        Raises:
          UsageError: They were not stored.
          TfflError: The file is damaged.
        """
        return load_updates(self.check_stored(round))

    def check_stored(self, round: int) -> Path:
        """Returns the file with the stored updates of one round.

        Raises:
          UsageError: They were not stored.
        """
        files = round_files(self.path / "updates")
        have = f"it has those of {', '.join(map(str, files))}" if files else "it has none"
        require(
            round in files,
            f"{self.path} stores no updates of round {round}: {have}; run it with --store-updates",
        )
        return files[round]

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
        """Writes `summary.json`, and the pictures and exports that the config asks for.

        Raises:
          TfflError: A file cannot be written.
        """
        from tffl.drawing import figures
        from tffl.record import export

        write_json(self.path / "summary.json", summary)
        self._write_events()
        if self.config.record.figures:
            figures.write_run(self.path / FIGURES, *self.frames())
        if self.config.record.export:
            export.export(model, self.path / "export")
            for name, detector in detectors.items():
                export.export_detector(detector, self.path / "export" / name)

    def _write_tables(self) -> None:
        write_text(self.path / "clients.csv", self._clients.text())
        write_text(self.path / "rounds.csv", self._rounds.text())

    def _draw(self, round: int) -> None:
        """Draws the heat maps that a defense has looked at in a round."""
        if not (self._draws(round) and _round_file(self.path / PICTURES, round).exists()):
            return
        from tffl.drawing import heat_maps
        from tffl.drawing.explanation import recorded

        for seen in recorded(self.config, round, *self.frames(round), self.pictures(round)):
            heat_maps.write(seen, self.path / FIGURES)

    def _draws(self, round: int) -> bool:
        return self.config.record.draws(round, self.config.federation.rounds)

    def _write_events(self) -> None:
        """Brings `tensorboard/` up to the table's last round."""
        if not self.config.record.tensorboard:
            return
        self._events.write(*self.frames(self._events.logged + 1), self._drawn)

    def _drawn(self, round: int) -> list[tuple[str, Path]]:
        """Returns names and files of the heat maps that were drawn of a round."""
        return picture_files(self.path / FIGURES, round) if self._draws(round) else []

    def _check_rounds(self, last: int) -> None:
        """Raises `TfflError` if one of the rounds up to `last` is not in the tables."""
        for name, table in (("rounds.csv", self._rounds), ("clients.csv", self._clients)):
            missing = sorted(set(range(1, last + 1)) - set(table.rounds))
            if missing:
                raise TfflError(
                    f"{self.path / name} lacks round {missing[0]}, but there is a checkpoint of "
                    f"round {last}: restore the file, or run again with another --out"
                )

    def _drop_after(self, last: int) -> None:
        """Deletes what belongs to rounds after `last`, and what killed writes have left."""
        for name in ("rounds.csv", "clients.csv"):
            remove_left_overs(self.path / name)
        for folder in ("checkpoints", "updates", "deviations", PICTURES, FIGURES, "export"):
            remove_left_overs(self.path / folder / "*")
        for folder in ("checkpoints", "updates", "deviations", PICTURES):
            for round, file in round_files(self.path / folder).items():
                if round > last:
                    remove(file)
        for round in range(last + 1, self.config.federation.rounds + 1):
            for _, file in picture_files(self.path / FIGURES, round):
                remove(file)
        if max([0, *self._rounds.rounds, *self._clients.rounds]) > last:
            self._rounds.keep(last)
            self._clients.keep(last)
            self._write_tables()


def check_store_size(config: Config, clients: int, columns: int) -> None:
    """Checks, before round 1, that the updates to be stored stay within their limit.

    Args:
      config: The experiment.
      clients: Participants of a round, n.
      columns: Size of the weight layout, d.

    Raises:
      UsageError: rounds · (n + 1) · d · 4 bytes are more than `record.store_limit_gib`.
    """
    rounds = len(config.record.stored_rounds(config.federation.rounds))
    size = rounds * (clients + 1) * columns * 4 / 2**30
    require(
        size <= config.record.store_limit_gib,
        f"record.store_updates of {rounds} rounds takes {size:.3g} GiB, the limit is "
        f"{config.record.store_limit_gib:g} GiB: store fewer rounds, or raise "
        "record.store_limit_gib",
    )


def load_updates(path: Path) -> Updates:
    """Reads a round's updates from `RUN/updates/round-….safetensors`.

    Raises:
      TfflError: The file is missing or damaged.
    """
    tensors, header = read_tensors(Path(path))
    entries = json.loads(header["layout"])
    layout = WeightLayout(tuple(Entry(name, tuple(shape), flag) for name, shape, flag in entries))
    matrix = tensors.pop("deltas")
    return Updates(round=int(header["round"]), layout=layout, matrix=matrix, **tensors)


def environment(command: Sequence[str]) -> dict[str, Any]:
    """Returns what `environment.json` says: versions, devices, the command, and when it began."""
    import tensorflow as tf

    return {
        "command": list(command),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in ("tffl", "tensorflow", "keras", "numpy")},
        },
        "platform": platform.platform(),
        "machine": platform.machine(),
        "devices": [device.name for device in tf.config.list_physical_devices()],
        "intra_op_threads": tf.config.threading.get_intra_op_parallelism_threads(),
    }


def differences(first: Config, second: Config, limit: int = 3) -> str:
    """Says in which keys two experiments differ, at most `limit` of them; empty if in none.

    >>> differences(Config(seed=1), Config(seed=2))
    'seed is 1 there, 2 here'
    """
    there, here = flat(identity(first)), flat(identity(second))
    keys = [key for key in {**there, **here} if there.get(key) != here.get(key)]
    told = [f"{key} is {there.get(key)!r} there, {here.get(key)!r} here" for key in keys[:limit]]
    return "; ".join(told) + (f"; and {len(keys) - limit} more" if len(keys) > limit else "")


def _differences_but_end(first: Config, second: Config) -> str:
    """Says in what two experiments differ, their end aside unless something depends on it."""
    ends = first.federation.rounds, second.federation.rounds
    if ends[0] != ends[1] and second.training.depends_on_rounds:
        schedule = f"training.schedule = '{second.training.schedule}'"
        return f"{differences(first, second)} ({schedule} depends on the number of rounds)"
    return differences(first.with_rounds(ends[1]), second)


def round_files(folder: Path) -> dict[int, Path]:
    """Returns round → file of a folder of `round-000001.safetensors`, by ascending round."""
    found = {}
    for file in folder.glob("round-*.safetensors"):
        if match := re.fullmatch(r"round-(\d+)\.safetensors", file.name):
            found[int(match[1])] = file
    return dict(sorted(found.items()))


def picture_files(folder: Path, round: int) -> list[tuple[str, Path]]:
    """Returns names and files of a round's pictures, such as `heat_maps_round_0003.png`."""
    end = f"_round_{round:04d}.png"
    return [(file.name.removesuffix(end), file) for file in sorted(folder.glob(f"*{end}"))]


def _round_file(folder: Path, round: int) -> Path:
    return folder / f"round-{round:06d}.safetensors"


def _read_deviations(path: Path) -> Deviations:
    tensors, header = read_tensors(path)
    names = tuple(json.loads(header["names"]))
    return Deviations(int(header["round"]), tensors["client_ids"], names, tensors["deviations"])


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
        differing = _differences_but_end(stored, config)
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


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # such as tensorflow-cpu in the place of tensorflow
        return None


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Joins nested keys by dots; leaves out None, which TOML cannot say.

    >>> flat({"data": {"beta": 0.5, "image_size": None}, "seed": 0})
    {'data.beta': 0.5, 'seed': 0}
    """
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            result.update(flat(value, f"{prefix}{key}."))
        elif value is not None:
            result[prefix + key] = value
    return result
