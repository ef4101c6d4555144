"""The typed description of an experiment; reads and writes TOML.

    config = load("experiment.toml", overrides={"federation.rounds": 5})
    config = Config.model_validate({"data": {"dataset": "mnist"}, "seed": 3})

The numbers of a run depend on `seed`, `data`, `federation`, `model`, `training`, `attack` and
`defense` only; `runtime` and `record` say where it runs and what it keeps.
"""

from tffl.config.command_line import part_options, read_experiment
from tffl.config.reading import (
    as_config,
    build,
    build_from_file,
    load,
    override,
    parse_setting,
    read,
)
from tffl.config.sections import (
    ComponentConfig,
    Config,
    DataConfig,
    FederationConfig,
    ModelConfig,
    RecordConfig,
    RuntimeConfig,
    Section,
    TrainingConfig,
)

__all__ = [
    "ComponentConfig",
    "Config",
    "DataConfig",
    "FederationConfig",
    "ModelConfig",
    "RecordConfig",
    "RuntimeConfig",
    "Section",
    "TrainingConfig",
    "as_config",
    "build",
    "build_from_file",
    "load",
    "override",
    "parse_setting",
    "part_options",
    "read",
    "read_experiment",
]
