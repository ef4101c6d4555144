"""Builds a federation from a config: loads the samples, then splits them over the clients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tffl.config import Config, DataConfig
from tffl.core import seeds
from tffl.core.errors import TfflError, UsageError, first_line, require
from tffl.data import datasets, partition
from tffl.data.federation import ClientData, Dataset, Federation
from tffl.data.resize import resize
from tffl.data.sampled import SampledClients
from tffl.data.shift import shifted
from tffl.data.sources.find import at_path, is_path
from tffl.data.validation import check_source, validated


def dataset_source(name: str) -> Any:
    """Returns the object that prepares and loads a dataset.

    Args:
      name: A name of `tffl list datasets`, with or without a variant, such as `"gtsrb/64x64"`.

    Raises:
      UsageError: The dataset or its variant is unknown, or the registered class is not a dataset.
    """
    base, _, variant = name.partition("/")
    require(
        base in datasets or not is_path(name),
        f"{name} is a path: your own data need no preparation, give them as --dataset",
    )
    check_source(datasets[base], base)
    if not variant:
        return datasets.create(base, {})
    known = datasets.describe(base)["options"]
    require("variant" in known, f"dataset {name} is not allowed: {base} has no variants")
    return datasets.create(base, {"variant": variant})


def source_of(config: DataConfig) -> Any:
    """Returns where the data of a config come from: a registered name wins over a path.

    Raises:
      UsageError: There is neither, or what is there cannot be read.
    """
    return at_path(config) if is_own(config) else dataset_source(config.dataset)


def is_own(config: DataConfig) -> bool:
    """Says whether a config's dataset is a path, and not a name."""
    return config.dataset.partition("/")[0] not in datasets and is_path(config.dataset)


def located(config: DataConfig) -> DataConfig:
    """Returns a config whose dataset, if it is a path, is found from any working directory."""
    if not is_own(config):
        return config
    path = Path(config.dataset).expanduser().absolute()
    return config.model_copy(update={"dataset": str(path)})


def check_prepared(config: DataConfig) -> None:
    """Checks that a dataset exists and is prepared; does not import TensorFlow.

    Raises:
      UsageError: The dataset is unknown or not prepared; the message says what to do.
    """
    chosen = source_of(config)
    if hasattr(chosen, "check_prepared"):  # only datasets of TFDS, and the user's own data, have it
        chosen.check_prepared(config.data_dir)


def loading_key(config: DataConfig) -> str:
    """Returns what decides which arrays `load_dataset` returns."""
    keys = {"dataset", "data_dir", "test_limit", "image_size", "test_share", "skip_broken"}
    return config.model_dump_json(include=keys | {"label", "split", "client"})


def check_any_prepared(configs: Iterable[DataConfig]) -> None:
    """Checks, without TensorFlow, that at least one of several datasets is prepared.

    Raises:
      UsageError: None is; the message is about the first.
    """
    first = None
    for config in dict.fromkeys(configs):
        try:
            return check_prepared(config)
        except UsageError as error:
            first = first or error
    if first:
        raise first


def load_dataset(config: DataConfig) -> Dataset:
    """Loads the samples that a config names; never downloads them.

    Raises:
      UsageError: The dataset is unknown or not prepared, or its arrays are not as `Dataset` says.
      TfflError: The files are damaged.
    """
    dataset = validated(_read(config), config.dataset)
    if config.test_limit is not None:
        kept = partition.balanced(dataset.test_labels, config.test_limit, None)
        dataset = replace(
            dataset, test_images=dataset.test_images[kept], test_labels=dataset.test_labels[kept]
        )
    if config.image_size is None:
        return dataset
    dataset.require_images("data.image_size")
    dtype = dataset.train_images.dtype.type
    return replace(
        dataset,
        train_images=resize(dataset.train_images, config.image_size, dtype),
        test_images=resize(dataset.test_images, config.image_size, dtype),
    )


def _read(config: DataConfig) -> Any:
    """Loads a dataset; an unexpected error becomes one line that names the dataset."""
    name = config.dataset
    chosen = source_of(config)
    try:
        return chosen.load(config.data_dir)
    except (TfflError, MemoryError):
        raise
    except Exception as error:  # plug-in code may raise anything
        raise TfflError(f"dataset {name} cannot be loaded: {first_line(error)}") from error


def build_federation(config: Config, dataset: Dataset, reserved: np.ndarray) -> Federation:
    """Splits the training images over the clients, and over the server if it has data.

    Args:
      config: The split depends on `seed`, `data` and the number of clients.
      dataset: As `load_dataset` returns it.
      reserved: int `[r]`, positions of training images that stay in the pool but belong to nobody.

    Raises:
      UsageError: A client would have no images; the message says which settings would work.
    """
    free = np.setdiff1d(np.arange(len(dataset.train_labels)), reserved)
    if config.data.train_limit is not None:
        draw = seeds.generator(config.seed, "train-limit")
        free = free[partition.balanced(dataset.train_labels[free], config.data.train_limit, draw)]
    root: list[np.ndarray] = []
    if config.data.server_samples:
        root, free = _draw_root(config, free)
    if config.data.partition == "sampled":
        return _sample(config, _assemble(dataset, [*root, free], reserved, server=bool(root)))
    if config.data.partition == "natural":
        parts = _natural(config, dataset, free)
    else:
        parts = [free[part] for part in split(config, dataset.train_labels[free])]
    has_data = bool(root) or config.data.server_shard
    return shifted(config, _assemble(dataset, [*root, *parts], reserved, server=has_data))


def _natural(config: Config, dataset: Dataset, free: np.ndarray) -> list[np.ndarray]:
    """Leaves samples with the clients that the data name."""
    owners, names = dataset.train_clients, dataset.client_names
    if owners is None:
        raise UsageError(
            f"data.partition = 'natural' needs data that say whose they are, and {dataset.name} "
            "does not: give a folder per client, an array clients, or data.client"
        )
    require(
        config.federation.clients == len(names),
        f"{dataset.name} has {len(names)} clients: set federation.clients = {len(names)}, not "
        f"{config.federation.clients}",
    )
    parts = [free[owners[free] == client] for client in range(len(names))]
    empty = [names[client] for client, part in enumerate(parts) if not len(part)]
    require(
        not empty,
        f"no training samples are left for client {', '.join(empty[:3])}"
        f"{f' and {len(empty) - 3} more' if len(empty) > 3 else ''}: keep fewer for testing, the "
        "server or data.train_limit, or leave these clients out",
    )
    return parts


def _sample(config: Config, federation: Federation) -> Federation:
    """Replaces the single client of a federation by clients that draw from its samples."""
    (pool,), data = federation.clients, config.data
    require(len(pool) > 0, "no training images are left for the clients")
    clients = SampledClients(
        pool, config.federation.clients, data.samples_per_client, data.beta, config.seed
    )
    return replace(federation, clients=clients)


def _draw_root(config: Config, free: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Returns the positions of the server's samples, as a list of one shard, and the others."""
    count = config.data.server_samples
    require(
        count < len(free),
        f"data.server_samples = {count} is not allowed: there are {len(free)} training images",
    )
    draw = seeds.generator(config.seed, "root data")
    chosen = np.sort(draw.choice(free, count, replace=False))
    return [chosen], np.setdiff1d(free, chosen)


def split(config: Config, labels: np.ndarray) -> list[np.ndarray]:
    """Splits samples over the shards of a federation; if the server has one, it is the first.

    Args:
      config: The experiment.
      labels: int32 `[n]`.

    Returns:
      One ascending array of positions in `labels` per shard.

    Raises:
      UsageError: A shard would be empty; the message says which settings would work.
    """
    try:
        return _partition(config, labels)
    except UsageError as error:
        by_shares = config.data.partition in ("dirichlet", "dirichlet-size")
        if not by_shares or len(labels) < _shard_count(config):
            raise
        advice = ", or ".join(_working_settings(config, labels))
        require(not advice, f"{str(error).partition(':')[0]}: {advice} would work")
        raise


def _shard_count(config: Config) -> int:
    return config.federation.clients + config.data.server_shard


def _partition(config: Config, labels: np.ndarray) -> list[np.ndarray]:
    data, count = config.data, _shard_count(config)
    generator = seeds.generator(config.seed, "partition")
    if data.partition == "iid":
        return partition.iid(labels, count, generator)
    if data.partition == "dirichlet":
        return partition.dirichlet(labels, count, data.beta, generator)
    if data.partition == "dirichlet-size":
        return partition.dirichlet_size(labels, count, data.beta, generator)
    if data.partition == "shards":
        return partition.shards(labels, count, data.classes_per_client, generator)
    return partition.round_robin(labels, count)


def _working_settings(config: Config, labels: np.ndarray) -> Iterator[str]:
    """Yields the nearest beta, number of clients and seed with which the split works."""
    beta, clients = config.data.beta, config.federation.clients
    larger = [float(f"{beta * 1.25**step:.2g}") for step in range(1, 40)]
    fewer = [clients * (20 - step) // 20 for step in range(1, 20)]
    trials: list[tuple[str, str, list[Any]]] = [
        ("data", "beta", larger),
        ("federation", "clients", [count for count in fewer if count]),
        ("", "seed", list(range(config.seed + 1, config.seed + 20))),
    ]
    for section, key, values in trials:
        for value in values:
            if _can_split(_with_value(config, section, key, value), labels):
                yield f"{key} = {value}"
                break


def _with_value(config: Config, section: str, key: str, value: Any) -> Config:
    if not section:
        return config.model_copy(update={key: value})
    part = getattr(config, section).model_copy(update={key: value})
    return config.model_copy(update={section: part})


def _can_split(config: Config, labels: np.ndarray) -> bool:
    try:
        return bool(_partition(config, labels))
    except UsageError:
        return False


def _assemble(
    dataset: Dataset, parts: list[np.ndarray], reserved: np.ndarray, server: bool
) -> Federation:
    """Builds the pool of all used and reserved images, and shards that index into it."""
    used = np.zeros(len(dataset.train_labels), dtype=bool)
    used[np.concatenate([*parts, reserved.astype(np.int64)])] = True
    position = (np.cumsum(used) - 1).astype(np.int32)
    shards = [ClientData(position[part], dataset.train_labels[part]) for part in parts]
    all_used = bool(used.all())
    return Federation(
        dataset=dataset,
        images=dataset.train_images if all_used else dataset.train_images[used],
        pool_ids=dataset.train_ids if all_used else dataset.train_ids[used],
        clients=tuple(shards[1:] if server else shards),
        server=shards[0] if server else None,
    )
