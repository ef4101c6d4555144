"""Objects of the user's own in the place of names: in one session, without a package.

An experiment is described by names and options, so that it can be written down and run again. An
object becomes both: its class is registered for the session, and its options go into the config.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import keras
import numpy as np

from tffl.attacks import Attack, attacks
from tffl.callbacks.metric import Function, Metric, metrics
from tffl.config import ComponentConfig, Config, DataConfig, ModelConfig
from tffl.core.errors import require
from tffl.core.registry import Registry
from tffl.data import Dataset, datasets
from tffl.data.arrays import from_arrays
from tffl.data.sources.tf_data import arrays_of, is_tf_data
from tffl.defenses import Defense, defenses
from tffl.defenses.score_detector import ScoreDetector
from tffl.models import models
from tffl.models.layers import set_weights
from tffl.models.own import keeping_weights

Arrays: TypeAlias = Any
"""Training samples `[N, …]` and labels `[N]`, then those of the test set, as `from_arrays` takes
them; a `tf.data.Dataset` of (sample, label), or a pair of them, for training and for testing."""


def register(name: str, target: Any, kind: str = "") -> None:
    """Gives an attack, defense, model, dataset or metric of the user's own a name for this session.

    What it is follows from its type: a subclass of `Attack` or `Defense`, a `keras.Model` or a
    function (image_shape, classes) → `keras.Model`, a `Dataset`, or arrays. Only a metric, a
    function (labels, logits) → number, has to be called one: `kind="metric"`.

    Args:
      name: Kebab-case; none of tffl's own.
      target: The class, function or object.
      kind: `"attack"`, `"defense"`, `"model"`, `"dataset"` or `"metric"`; if empty, see above.

    Raises:
      UsageError: It is none of these, or the name is taken.
    """
    if kind == "metric":
        metrics.register(name, Metric(name, target).function)
        return
    registry, entry = _entry(name, target)
    require(
        kind in ("", registry.kind),
        f"{name} = {target!r} cannot be registered as kind = {kind!r}: it is a {registry.kind}, "
        "and other kinds are attack, defense, model, dataset and metric",
    )
    registry.register(name, entry)


def described(
    config: Config,
    attack: Attack | str | None = None,
    defense: Defense | str | None = None,
    model: keras.Model | Callable[..., keras.Model] | Path | str | None = None,
    dataset: Dataset | Arrays | Path | str | None = None,
    own_metrics: Mapping[str, Function] | Sequence[str] = (),
) -> Config:
    """Returns a config that names these parts in the place of its own."""
    changes: dict[str, Any] = {}
    if attack is not None:
        changes["attack"] = _named(attacks, attack)
    if defense is not None:
        changes["defense"] = _named(defenses, defense)
    if model is not None:
        named = isinstance(model, str | Path)
        name = str(model) if named else _name_of(model)
        if not named:
            register(name, model)
        changes["model"] = _of_model(config.model, name)
    if dataset is not None:
        named = isinstance(dataset, str | Path)
        name = str(dataset) if named else _dataset_name(dataset)
        if not named:
            register(name, dataset)
        data = config.data.model_dump() | {"dataset": name}
        changes["data"] = DataConfig.model_validate(data)
    if own_metrics:
        require(
            isinstance(own_metrics, Mapping | Sequence) and not isinstance(own_metrics, str),
            f"metrics = {own_metrics!r} is not allowed: give a list of names, or "
            "{name: function}",
        )
        if isinstance(own_metrics, Mapping):
            for name, function in own_metrics.items():
                register(name, Metric(name, function).function, kind="metric")
        names = dict.fromkeys((*config.record.metrics, *own_metrics))
        changes["record"] = config.record.model_copy(update={"metrics": tuple(names)})
    return config.model_copy(update=changes)


def _of_model(config: ModelConfig, name: str) -> ModelConfig:
    """Returns a config's model under another name; its options are kept unless it has a name."""
    if "name" not in config.model_fields_set:
        return config.model_copy(update={"name": name})
    return ModelConfig(name=name, imports=config.imports)


def _named(registry: Registry, part: Any) -> ComponentConfig:
    if isinstance(part, str):
        return ComponentConfig(name=part)
    base = Attack if registry is attacks else Defense
    require(
        isinstance(part, base),
        f"{registry.kind} = {part!r} is not allowed: give a name, or an object such as "
        f"tffl.{registry.kind}s.{'LabelFlip' if base is Attack else 'MultiKrum'}()",
    )
    require(
        not isinstance(part, ScoreDetector),
        f"{registry.kind} = ScoreDetector(…) is not allowed: its functions cannot be recorded in a "
        "config; write a class that extends Detector, as README.md shows",
    )
    cls = type(part)
    known = (name for name in registry if registry[name] is cls)
    name = next(known, None)
    if name is None:
        name = _kebab(cls.__name__)
        registry.register(name, cls)
    return ComponentConfig.model_validate({"name": name, **part.options()})


def _entry(name: str, target: Any) -> tuple[Registry, Any]:
    if isinstance(target, type) and issubclass(target, Attack):
        return attacks, target
    if isinstance(target, type) and issubclass(target, Defense):
        return defenses, target
    if isinstance(target, keras.Model):
        return models, _same(target)
    if isinstance(target, Dataset):
        return datasets, _source(target)
    if isinstance(target, tuple | list) or is_tf_data(target):
        return datasets, _source(_of_arrays(name, target))
    require(
        callable(target),
        f"{name} = {target!r} cannot be registered: give a class of an attack or a defense, a "
        "keras.Model or a function that returns one, a Dataset, a tf.data.Dataset, or arrays",
    )
    return (datasets if hasattr(target, "load") else models), target


def _same(model: keras.Model) -> Callable[..., keras.Model]:
    """Returns a function that builds a model's twin, with the weights that it has now."""
    weights = [np.array(value) for value in model.get_weights()]

    def build(image_shape: tuple[int, int, int], classes: int) -> keras.Model:
        wanted = tuple(model.input_shape[1:])
        require(
            wanted == tuple(image_shape),
            f"model {model.name} takes images of {wanted}, and the dataset has {image_shape}",
        )
        twin = keras.models.clone_model(model)
        set_weights(twin, weights)
        return twin

    return keeping_weights(build)


def _source(dataset: Dataset) -> type:
    """Returns a class that loads a dataset which is in memory already."""

    @dataclass(frozen=True)
    class InMemory:
        """A dataset of this session."""

        reference: ClassVar[str] = ""

        def prepared(self, data_dir: Path | None) -> bool:
            return True

        def location(self, data_dir: Path | None) -> str:
            return "in memory"

        def prepare(self, data_dir: Path | None) -> None:
            return

        def load(self, data_dir: Path | None) -> Dataset:
            return dataset

    return InMemory


def _of_arrays(name: str, data: Any) -> Dataset:
    """Makes a dataset of four arrays, a `tf.data.Dataset`, or a pair of them."""
    if is_tf_data(data):
        return from_arrays(name, arrays_of(data, f"dataset {name}"))
    if len(data) == 2 and all(map(is_tf_data, data)):
        train, test = data
        return from_arrays(
            name,
            arrays_of(train, f"dataset {name}, the training part"),
            arrays_of(test, f"dataset {name}, the test part"),
        )
    require(
        len(data) == 4,
        f"dataset {name} has {len(data)} arrays: give (x_train, y_train, x_test, y_test)",
    )
    x, y, x_test, y_test = data
    return from_arrays(name, (x, y), (x_test, y_test))


def _dataset_name(dataset: Dataset | Arrays) -> str:
    name = _kebab(dataset.name) if isinstance(dataset, Dataset) else "arrays"
    return f"my-{name}" if name in datasets.builtin else name


def _name_of(model: Any) -> str:
    name = _kebab(str(getattr(model, "name", getattr(model, "__name__", "model"))))
    return f"my-{name}" if name in models.builtin else name


def _kebab(name: str) -> str:
    """Returns a name as a config writes it.

    >>> _kebab("NormLimit"), _kebab("my_model 2")
    ('norm-limit', 'my-model-2')
    """
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name)
    return re.sub(r"[^a-z0-9]+", "-", parted.lower()).strip("-") or "own"
