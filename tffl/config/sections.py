"""The sections of an experiment, with every key, its range and its default."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tffl.core.options import count_or_fraction
from tffl.core.weighting import Weighting

if sys.version_info >= (3, 11):
    pass
else:
    pass


CountOrFraction = Annotated[int | float, BeforeValidator(count_or_fraction)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Section(BaseModel):
    """A part of the config: immutable, and without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataConfig(Section):
    """Which images, and how they are split over the clients."""

    dataset: str = "digits"
    data_dir: Path | None = None
    """Folder of prepared TFDS datasets; `TFFL_DATA_DIR` or TFDS's own default if absent."""
    train_limit: Annotated[int, Field(ge=1)] | None = None
    """Use only this many training images, drawn at random, balanced over the classes."""
    test_limit: Annotated[int, Field(ge=1)] | None = None
    image_size: Annotated[int, Field(ge=4, le=512)] | None = None
    """Resize images to this height and width (bilinear)."""
    partition: Literal["iid", "dirichlet", "shards", "round-robin", "sampled"] = "iid"
    """How images are dealt; `sampled` deals none: clients share them, and may be millions."""
    beta: Annotated[float, Field(gt=0)] = 0.5
    """Concentration of the `dirichlet` and `sampled` partitions; small is uneven."""
    classes_per_client: Annotated[int, Field(ge=1)] = 2
    """For `shards`: how many classes each client holds."""
    samples_per_client: Annotated[int, Field(ge=1)] = 50
    """For `sampled`: how many samples each client draws."""
    server_shard: bool = False
    """Deal one more shard, which the server keeps as its own training data."""
    server_samples: Annotated[int, Field(ge=0)] = 0
    """Draw this many training images at random, before the split, for the server: its root data."""

    @model_validator(mode="after")
    def _check_server_data(self) -> DataConfig:
        if self.server_shard and self.server_samples:
            raise ValueError(
                f"data.server_samples = {self.server_samples} is not allowed with "
                "data.server_shard = true: the server's data is the one or the other"
            )
        if self.server_shard and self.partition == "sampled":
            raise ValueError(
                "data.server_shard = true is not allowed with data.partition = 'sampled', which "
                "deals no shards: set data.server_samples"
            )
        return self


class FederationConfig(Section):
    """Who takes part, and for how long."""

    clients: Annotated[int, Field(ge=1)] = 10
    participants: CountOrFraction | None = None
    """Clients drawn each round; all of them if absent."""
    malicious: CountOrFraction = 0.2
    """Malicious clients, a count or a fraction of all; nobody is malicious without an attack."""
    malicious_participants: Annotated[int, Field(ge=0)] | None = None
    """Exactly so many malicious clients are drawn each round; if absent, as chance has it."""
    weighting: Weighting = "claimed"
    """How much clients count: by claimed samples, those capped at thrice their median, or alike."""
    rounds: Annotated[int, Field(ge=1)] = 10
    server_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs that the server trains on its own shard before round 1."""
    server_learning_rate: Annotated[float, Field(gt=0)] = 1.0
    """Step along the aggregated update."""

    @model_validator(mode="after")
    def _check_counts(self) -> FederationConfig:
        for name in ("malicious", "participants"):
            value = getattr(self, name)
            if value is None:
                continue
            limit = 1.0 if isinstance(value, float) else self.clients
            low = 0 if name == "malicious" else (1 if isinstance(value, int) else 0)
            if not low <= value <= limit or (name == "participants" and value == 0):
                raise ValueError(
                    f"federation.{name} = {value} is not allowed with {self.clients} clients: "
                    f"give a count from {max(low, 1) if name == 'participants' else low} to "
                    f"{self.clients}, or a fraction up to 1.0"
                )
        return self

    @model_validator(mode="after")
    def _check_malicious_participants(self) -> FederationConfig:
        count, malicious = self.malicious_participants, self.malicious_count
        if count is None or not malicious:  # an attack-free run of the same experiment
            return self
        least = max(0, self.participant_count - (self.clients - malicious))
        most = min(malicious, self.participant_count)
        if not least <= count <= most:
            raise ValueError(
                f"federation.malicious_participants = {count} is not allowed: with {malicious} "
                f"of {self.clients} clients malicious and {self.participant_count} participants a "
                f"round, give {least} to {most}"
            )
        return self

    @property
    def participant_count(self) -> int:
        """How many clients take part in a round."""
        if self.participants is None:
            return self.clients
        return max(1, _resolve(self.participants, self.clients))

    @property
    def malicious_count(self) -> int:
        """How many of all clients are malicious, if there is an attack."""
        return _resolve(self.malicious, self.clients)


def _resolve(value: int | float, total: int) -> int:
    return value if isinstance(value, int) else math.floor(value * total + 0.5)


class TrainingConfig(Section):
    """What a client does with its data in one round."""

    local_epochs: Annotated[int, Field(ge=1)] = 1
    batch_size: Annotated[int, Field(ge=1)] = 64
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate: Annotated[float, Field(gt=0)] = 0.05
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["constant", "exponential", "cosine"] = "constant"
    """How the learning rate changes over rounds."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.99
    """For `exponential`: the factor from one round to the next."""
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    jit: bool = False
    """Compile each training step with XLA."""

    @property
    def depends_on_rounds(self) -> bool:
        """Whether a round's learning rate depends on how many rounds there are in all."""
        return self.schedule == "cosine"

    def learning_rate_of(self, round: int, rounds: int) -> float:
        """Returns the learning rate of a round, 1-based."""
        if self.schedule == "exponential":
            return self.learning_rate * self.decay ** (round - 1)
        if self.schedule == "cosine":
            return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (round - 1) / rounds))
        return self.learning_rate


class ModelConfig(Section):
    """The network."""

    name: str = "cnn"


class ComponentConfig(BaseModel):
    """An attack or a defense: its name, and options that its own dataclass validates."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = "none"

    @property
    def options(self) -> dict[str, Any]:
        """Every key but the name."""
        return dict(self.model_extra or {})


class RuntimeConfig(Section):
    """Where it runs; never changes a number."""

    devices: Annotated[int, Field(ge=0)] = 0
    """Local devices to use: GPUs where there are any, else logical CPU devices; 0 takes all."""
    updates_on_disk: bool = False
    """Keep a round's updates in a temporary file, where they do not fit into memory."""
    placement: Literal["local", "cluster"] = "local"
    """Who trains the clients: this process, or `tffl worker` processes, here or on machines."""
    workers: tuple[str, ...] = ()
    """For `cluster`: `"host:port"` of each, or `"host:first-last"`; if empty, see `TF_CONFIG`."""
    parameter_server: str = ""
    """For `cluster`: `"host:port"` of an idle process that TensorFlow wants; if empty, its own."""
    wait: Annotated[float, Field(ge=1)] = 60.0
    """Seconds that a run waits for workers to come: at its start, and when the last one is gone."""
    time_limit: Annotated[float, Field(ge=1)] = 600.0
    """Seconds without a finished client after which workers that answer are given up."""


class RecordConfig(Section):
    """What a run directory keeps beyond the tables."""

    store_updates: str = ""
    """Rounds whose client updates are kept: `"all"`, or a list such as `"1,5,10-12"`."""
    store_limit_gib: Annotated[float, Field(gt=0)] = 4.0
    checkpoint_every: Annotated[int, Field(ge=1)] = 1
    tensorboard: bool = True
    export: bool = True
    figures: bool = True
    pictures_every: Annotated[int, Field(ge=0)] = 0
    """Draw what a heat-map defense sees every so many rounds; with 0, and `figures`, of the last
    round only."""

    @model_validator(mode="after")
    def _check_rounds(self) -> RecordConfig:
        self.stored_rounds(1)
        return self

    def draws_pictures(self, round: int, rounds: int) -> bool:
        """Says whether pictures of a round's heat maps are drawn; `rounds` is the last one."""
        every = self.pictures_every
        return (every > 0 and round % every == 0) or (self.figures and round == rounds)

    def stored_rounds(self, rounds: int) -> frozenset[int]:
        """Returns the rounds, 1-based, whose updates are kept."""
        if self.store_updates == "all":
            return frozenset(range(1, rounds + 1))
        chosen: set[int] = set()
        for part in filter(None, self.store_updates.replace(" ", "").split(",")):
            first, _, last = part.partition("-")
            if not (first.isdigit() and (last or first).isdigit()):
                raise ValueError(
                    f"record.store_updates = {self.store_updates!r} is not allowed: "
                    "give 'all' or rounds such as '1,5,10-12'"
                )
            chosen.update(range(int(first), int(last or first) + 1))
        return frozenset(round for round in chosen if 1 <= round <= rounds)


class Config(Section):
    """One experiment."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    data: DataConfig = DataConfig()
    federation: FederationConfig = FederationConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    attack: ComponentConfig = ComponentConfig()
    defense: ComponentConfig = ComponentConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    record: RecordConfig = RecordConfig()

    @model_validator(mode="after")
    def _check_server(self) -> Config:
        has_data = self.data.server_shard or self.data.server_samples
        if self.federation.server_epochs and not has_data:
            raise ValueError(
                f"federation.server_epochs = {self.federation.server_epochs} is not allowed "
                "without data for the server: set data.server_shard = true, or data.server_samples"
            )
        return self

    def to_toml(self) -> str:
        """Returns the config as TOML, without the keys that are unset."""
        return tomli_w.dumps(_set_only(self.model_dump(mode="json")))

    def with_rounds(self, rounds: int) -> Config:
        """Returns the config with another number of rounds."""
        federation = self.federation.model_copy(update={"rounds": rounds})
        return self.model_copy(update={"federation": federation})


def _set_only(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _set_only(value) if isinstance(value, Mapping) else value
        for key, value in values.items()
        if value is not None
    }
