"""The typed description of an experiment; reads and writes TOML.

    config = load("experiment.toml", overrides={"federation.rounds": 5})
    config = Config.model_validate({"data": {"dataset": "mnist"}, "seed": 3})

Everything that changes the numbers of a run is in `seed`, `data`, `federation`, `model`,
`training`, `attack` and `defense`; `runtime` and `record` only say where it runs and what it keeps.
"""

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
    "read",
]
