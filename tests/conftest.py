"""TensorFlow as a run sets it up, with four logical CPU devices, before any test starts it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["CUDA_VISIBLE_DEVICES"] = ""

from tffl.engine.runtime import configure, supports_convolution
from tffl.record.identity import resolved
from tffl.simulation.registries import HOMES, registry

configure(devices=4)


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
