"""The sections of an experiment, with every key, its range and its default."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tffl.core.options import count_or_fraction
from tffl.core.weighting import Weighting

CountOrFraction = Annotated[int | float, BeforeValidator(count_or_fraction)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Section(BaseModel):
    """A section of the config: immutable, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataConfig(Section):
    """Which images there are, and how they are split over the clients."""

    dataset: str = "digits"
    """A name of `tffl list datasets`; or a folder of images per class, a `.npz`, `.csv` or
    `.parquet` file, or the folder of a prepared TFDS dataset's version."""
    data_dir: Path | None = None
    """Folder of prepared TFDS datasets; by default `TFFL_DATA_DIR`, or else TFDS's own."""
    train_limit: Annotated[int, Field(ge=1)] | None = None
    """Use only this many training images, drawn at random and balanced over the classes."""
    test_limit: Annotated[int, Field(ge=1)] | None = None
    image_size: Annotated[int, Field(ge=4, le=512)] | None = None
    """Resize images to this height and width (bilinear)."""
    normalization: Literal["none", "per-channel"] = "none"
    """`per-channel` scales each channel to mean 0 and standard deviation 1 of all training images,
    inside the model, which still takes images as they are."""
    partition: Literal[
        "iid", "dirichlet", "dirichlet-size", "shards", "round-robin", "natural", "sampled"
    ] = "iid"
    """How images are split. `natural` leaves them with the clients that the data name; `sampled`
    does not split them: clients share all images."""
    beta: Annotated[float, Field(gt=0)] = 0.5
    """Concentration of the `dirichlet`, `dirichlet-size` and `sampled` partitions; the smaller, the
    more uneven."""
    classes_per_client: Annotated[int, Field(ge=1)] = 2
    """For `shards`, often called pathological: number of classes that each client holds."""
    samples_per_client: Annotated[int, Field(ge=1)] = 50
    """For `sampled`: number of samples that each client draws."""
    server_shard: bool = False
    """Split off one more shard, which the server keeps as its own training data."""
    server_samples: Annotated[int, Field(ge=0)] = 0
    """Number of training images that are drawn for the server before the split: its root data."""
    shift: Literal["none", "rotation", "noise"] = "none"
    """Feature shift: each client's images are rotated by an angle, or get noise, of its own."""
    shift_strength: Annotated[float, Field(gt=0)] | None = None
    """The largest angle in degrees (default 30), or the largest standard deviation of the noise as
    a share of the range of pixels or of a feature's own deviation (default 0.1)."""
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """For own data without a test part: the share of each class that is kept for testing. It is
    the same for every seed."""
    label: str = ""
    """For tables: the column of the classes."""
    split: str = ""
    """For tables: the column that says `train` or `test`, if there is one."""
    client: str = ""
    """For tables: the column that names the client of a row, for the `natural` partition."""
    skip_broken: bool = False
    """For folders of images: skip the images that cannot be used, with a warning."""

    @model_validator(mode="after")
    def _check_server_data(self) -> DataConfig:
        if self.server_shard and self.server_samples:
            raise ValueError(
                f"data.server_samples = {self.server_samples} is not allowed with "
                "data.server_shard = true: set one of the two"
            )
        if self.server_shard and self.partition in ("natural", "sampled"):
            raise ValueError(
                f"data.server_shard = true is not allowed with data.partition = "
                f"'{self.partition}', which makes no shards: set data.server_samples"
            )
        if self.shift != "none" and self.partition == "sampled":
            raise ValueError(
                f"data.shift = '{self.shift}' is not allowed with data.partition = 'sampled', "
                "whose clients share their images: choose another partition"
            )
        return self


class FederationConfig(Section):
    """Who takes part, and for how many rounds."""

    clients: Annotated[int, Field(ge=1)] = 10
    participants: CountOrFraction | None = None
    """Clients drawn each round, a count or a fraction; all of them by default."""
    malicious: CountOrFraction = 0.2
    """Malicious clients, a count or a fraction of all; without an attack, none are malicious."""
    malicious_participants: Annotated[int, Field(ge=0)] | None = None
    """Number of malicious clients drawn each round; by default it is left to chance."""
    weighting: Weighting = "claimed"
    """Weight of a client: its claimed samples, those up to three times their median, or equal."""
    rounds: Annotated[int, Field(ge=1)] = 10
    server_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs that the server trains on its own data before round 1."""
    server_learning_rate: Annotated[float, Field(gt=0)] = 1.0
    """Factor that multiplies the aggregated update."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of a round's participants that never answer, malicious ones among them. A round in
    which too few are left for the defense is skipped."""
    stragglers: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of a round's participants that answer with less training than the others."""
    straggler_work: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of its training that a straggler finishes: whole epochs, or a part of the first."""

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
        """Number of clients that take part in a round."""
        if self.participants is None:
            return self.clients
        return max(1, _as_count(self.participants, self.clients))

    @property
    def malicious_count(self) -> int:
        """Number of malicious clients among all, if there is an attack."""
        return _as_count(self.malicious, self.clients)


def _as_count(value: int | float, total: int) -> int:
    return value if isinstance(value, int) else math.floor(value * total + 0.5)


class TrainingConfig(Section):
    """How a client trains in one round."""

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
    augmentation: Literal["none", "crop", "flip", "crop+flip"] = "none"
    """What clients, and the server on its own data, do to their images in every step: cut them out
    at a random place, mirror half of them. Mirrored digits and traffic signs are other ones."""
    crop_padding: Annotated[int, Field(ge=1)] = 4
    """For `crop`: number of black pixels around an image before it is cut out."""

    @property
    def depends_on_total_rounds(self) -> bool:
        """Whether the learning rate of a round depends on the total number of rounds."""
        return self.schedule == "cosine"

    def learning_rate_of(self, round: int, rounds: int) -> float:
        """Returns the learning rate of a round, 1-based, of `rounds` in all."""
        if self.schedule == "exponential":
            return self.learning_rate * self.decay ** (round - 1)
        if self.schedule == "cosine":
            return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (round - 1) / rounds))
        return self.learning_rate


class ComponentConfig(BaseModel):
    """An attack or a defense: a name, and options that its own class validates."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = "none"

    @property
    def options(self) -> dict[str, Any]:
        """All keys except the name."""
        return dict(self.model_extra or {})


class ModelConfig(ComponentConfig):
    """The network: its name, its first weights, and the options of its own function."""

    name: str = "cnn"
    """A name of `tffl list models`; or a `.keras` file; or a function `package.module:function`."""
    weights: str = ""
    """File with the weights of round 1: `.keras`, `.weights.h5`, `.npz` or `.safetensors`; by
    default they are random, or those of a `.keras` file that is the model."""
    head: Literal["loaded", "random"] = "loaded"
    """For `weights`: whether the last layer is loaded too. A `random` one may have another
    number of classes than that in the file."""
    imports: tuple[str, ...] = ()
    """Modules to import first, such as one that registers layers of a `.keras` file."""

    @model_validator(mode="after")
    def _check_head(self) -> ModelConfig:
        if self.head == "random" and not self.weights:
            raise ValueError(
                "model.head = 'random' is not allowed without model.weights: every weight is "
                "random then"
            )
        return self


class RuntimeConfig(Section):
    """Where an experiment runs; no number depends on it."""

    devices: Annotated[int, Field(ge=0)] = 0
    """Number of local devices to use, GPUs if there are any, else CPU cores; 0 uses all."""
    updates_on_disk: bool = False
    """Keep a round's updates in a temporary file, for when they do not fit into memory."""
    placement: Literal["local", "cluster"] = "local"
    """Where clients train: in this process, or in `tffl worker` processes on any machine."""
    workers: tuple[str, ...] = ()
    """For `cluster`: each `"host:port"` or `"host:first-last"`; by default those of `TF_CONFIG`."""
    parameter_server: str = ""
    """For `cluster`: `"host:port"` of the parameter server that TensorFlow requires; by default a
    process of its own."""
    wait: Annotated[float, Field(ge=1)] = 60.0
    """Seconds that a run waits for workers, at its start and when all of them are lost."""
    time_limit: Annotated[float, Field(ge=1)] = 600.0
    """Seconds without a finished client after which a run with responding workers fails."""


class RecordConfig(Section):
    """What a run directory holds beyond the tables."""

    store_updates: str = ""
    """Rounds whose client updates are stored: `"all"`, or a list such as `"1,5,10-12"`."""
    store_limit_gib: Annotated[float, Field(gt=0)] = 4.0
    metrics: tuple[str, ...] = ()
    """Further columns of `rounds.csv`; see `tffl list metrics`."""
    evaluate_every: Annotated[int, Field(ge=1)] = 1
    """Evaluate the global model every this many rounds, and after the last one."""
    evaluate_samples: Annotated[int, Field(ge=1)] | None = None
    """Evaluate on this many test samples, balanced over the classes and the same in every round
    and for every seed; after the last round, on all of them."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 1
    tensorboard: bool = True
    export: bool = True
    figures: bool = True
    pictures_every: Annotated[int, Field(ge=0)] = 0
    """Draw the heat maps of a defense every this many rounds; 0 draws the last round only, and
    only if `figures` is set."""

    @model_validator(mode="after")
    def _check_rounds(self) -> RecordConfig:
        self.stored_rounds(1)
        if len({*self.metrics}) < len(self.metrics):
            raise ValueError(f"record.metrics = {list(self.metrics)} names one more than once")
        return self

    def evaluates(self, round: int, rounds: int) -> bool:
        """Returns whether the global model is evaluated in a round; `rounds` is the last round."""
        return round % self.evaluate_every == 0 or round == rounds

    def draws_pictures(self, round: int, rounds: int) -> bool:
        """Returns whether the heat maps of a round are drawn; `rounds` is the last round."""
        every = self.pictures_every
        return (every > 0 and round % every == 0) or (self.figures and round == rounds)

    def stored_rounds(self, rounds: int) -> frozenset[int]:
        """Returns the rounds, 1-based, whose updates are stored."""
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
        """Returns the config as TOML, without keys that are None."""
        return tomli_w.dumps(_without_none(self.model_dump(mode="json")))

    def with_rounds(self, rounds: int) -> Config:
        """Returns the config with another number of rounds."""
        federation = self.federation.model_copy(update={"rounds": rounds})
        return self.model_copy(update={"federation": federation})


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(value) if isinstance(value, Mapping) else value
        for key, value in values.items()
        if value is not None
    }
