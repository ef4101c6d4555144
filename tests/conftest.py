"""TensorFlow as a run sets it up, with four logical CPU devices, before any test starts it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["CUDA_VISIBLE_DEVICES"] = ""
# Threads of OpenMP that wait in a loop would take the processor from the other test processes.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from tffl.config import Config
from tffl.data.federation import Dataset
from tffl.engine.compiled_model import CompiledModel
from tffl.engine.runtime import configure, supports_convolution
from tffl.record.identity import resolved
from tffl.simulation.registries import HOMES, registry
from tffl.simulation.shared_resources import SharedResources

configure(devices=4)

COMPILED = SharedResources()
OFTEN_COMPILED = {"cnn", "lenet5"}
"""The small models of most tests; larger ones would fill the memory."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips what needs an arithmetic that this processor, or its libraries' settings, lack."""
    if item.get_closest_marker("bfloat16") and not supports_convolution("bfloat16"):
        pytest.skip("no convolution in bfloat16 on this processor")


@pytest.fixture(autouse=True)
def registered_names_end_with_the_test() -> Iterator[None]:
    """Forgets what a test, or a docstring's example before it, has registered."""
    for kind in HOMES:
        registry(kind).forget_all()
    yield
    for kind in HOMES:
        registry(kind).forget_all()


@pytest.fixture(scope="session", autouse=True)
def small_models_are_compiled_once() -> Iterator[None]:
    """Lets all runs of a process share what is compiled for small models: tracing takes longest.

    As with `shared` of `tffl.simulate`, a later run overwrites the weights of the returned model.
    """
    compiled = SharedResources.compiled

    def shared(self: SharedResources, config: Config, dataset: Dataset) -> CompiledModel:
        shares = config.model.name in OFTEN_COMPILED and not config.model.weights
        return compiled(COMPILED if shares else self, config, dataset)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SharedResources, "compiled", shared)
        yield


@pytest.fixture(scope="session")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run with heat maps, and its undefended and attack-free siblings; do not change it."""
    from tffl.config import build
    from tffl.simulation.shared_resources import SharedResources
    from tffl.simulation.simulation import simulate
    from tffl.studies.comparison import variants

    path = tmp_path_factory.mktemp("compared") / "run_1"
    config = resolved(
        build(
            {
                "data": {"train_limit": 300, "test_limit": 100},
                "federation": {"clients": 6, "malicious": 2, "rounds": 2},
                "model": {"name": "lenet5"},
                "attack": {"name": "label-flip"},
                "defense": {"name": "gradcam-ae", "epochs": 3},
                "record": {"export": False, "figures": False},
            }
        )
    )
    chosen, shared = variants(config), SharedResources()
    for variant in ("defended", "undefended", "attack-free"):
        folder = path if variant == "defended" else path / variant
        simulate(chosen[variant], folder, command=["tffl", "simulate"], shared=shared)
    return path
