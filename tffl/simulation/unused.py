"""Settings that change nothing, of which a user should be warned."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from tffl.config import Config
from tffl.data.build import is_own


def unused_settings(config: Config) -> list[str]:
    """Returns a line for each setting that somebody has made and that changes nothing.

    Configs with every key, such as those of run directories, say nothing of what was wanted.

    Args:
      config: Not resolved yet.
    """
    lines = [
        f"{section}.{key} = {_written(getattr(getattr(config, section), key))} changes nothing: "
        f"{reason}"
        for section, key, reason in _idle(config)
        if _is_made(getattr(config, section), key)
    ]
    return [*lines, *_never(config)]


def _idle(config: Config) -> Iterator[tuple[str, str, str]]:
    """Yields section, key and reason of what has no effect beside the other settings."""
    data, training, runtime = config.data, config.training, config.runtime
    if config.attack.name == "none" and config.federation.malicious_count > 0:
        for key in ("malicious", "malicious_participants"):
            yield "federation", key, "nobody attacks, as attack.name is none"
    partitions = {
        "beta": ("dirichlet", "dirichlet-size", "sampled"),
        "classes_per_client": ("shards",),
        "samples_per_client": ("sampled",),
    }
    for key, those in partitions.items():
        if data.partition not in those:
            yield "data", key, f"data.partition is {data.partition}, not {' or '.join(those)}"
    if data.shift == "none":
        yield "data", "shift_strength", "data.shift is none"
    if not data.dataset.lower().endswith((".csv", ".parquet")):
        for key in ("label", "split", "client"):
            yield "data", key, f"{data.dataset} is not a table"
    if not is_own(data):
        for key in ("test_share", "skip_broken"):
            yield "data", key, f"{data.dataset} has a test part, and images that can be read"
    if config.federation.stragglers == 0:
        yield "federation", "straggler_work", "federation.stragglers is 0"
    if training.schedule != "exponential":
        yield "training", "decay", f"training.schedule is {training.schedule}, not exponential"
    if "crop" not in training.augmentation:
        yield "training", "crop_padding", f"training.augmentation is {training.augmentation}"
    if training.optimizer != "sgd":
        for key in ("momentum", "nesterov"):
            yield "training", key, f"training.optimizer is {training.optimizer}, not sgd"
    if runtime.placement != "cluster":
        for key in ("workers", "parameter_server"):
            yield "runtime", key, "runtime.placement is local, not cluster"


def _never(config: Config) -> Iterator[str]:
    """Yields what is wanted for somebody, or for a round, that there is not."""
    federation, rounds = config.federation, config.federation.rounds
    attacked = config.attack.name != "none"
    if attacked and federation.malicious > 0 and federation.malicious_count == 0:
        yield (
            f"federation.malicious = {federation.malicious} of {federation.clients} clients is "
            "less than half a client: nobody is malicious"
        )
    begin = config.attack.options.get("from_round", 1)
    if attacked and isinstance(begin, int) and begin > rounds:
        yield f"attack.from_round = {begin} lies after the last of {rounds} rounds: nobody attacks"
    burst, pause = (config.attack.options.get(key, 0) for key in ("on_rounds", "off_rounds"))
    if attacked and burst not in (0, 1, "1") and pause in (0, "0"):
        yield f"attack.on_rounds = {burst} changes nothing: attack.off_rounds is 0"
    stored = config.record.store_updates
    if stored and not config.record.stored_rounds(rounds):
        yield f"record.store_updates = {stored!r} names none of {rounds} rounds: nothing is stored"


def _is_made(section: BaseModel, key: str) -> bool:
    """Says whether a key was set by somebody, and not by a file that holds all of them."""
    fields = type(section).model_fields
    every = {name for name, field in fields.items() if field.default is not None}
    made = section.model_fields_set
    return key in made and getattr(section, key) is not None and not every <= made


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
