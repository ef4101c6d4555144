"""What a run with a heat-map detector exports, and whether a server without tffl can use it."""

from __future__ import annotations

import json
import subprocess
import sys

import keras
import numpy as np
import pytest

import tffl
from tffl.record.run_directory import RunDirectory

SETTING = {
    "data": {"train_limit": 300, "test_limit": 100},
    "federation": {"clients": 8, "rounds": 2},
    "model": {"name": "lenet5"},
    "record": {"tensorboard": False, "figures": False},
}

BARE = """
import sys
import numpy as np, tensorflow as tf
for folder in sys.argv[1:]:
    served = tf.saved_model.load(folder + "/run/export/detector/saved_model")
    score = served.signatures["serving_default"]
    result = score(maps=tf.constant(np.load(folder + "/maps.npy")))
    np.savez(folder + "/out.npz", **{name: value.numpy() for name, value in result.items()})
assert not any(name.startswith("tffl") for name in sys.modules)
"""

DEFENSES = (
    {"name": "gradcam-ae", "epochs": 5},
    {"name": "layercam-ae", "variant": "released", "epochs": 5},
    {"name": "cam-consensus", "probes": 8, "group": 4, "epochs": 5, "folds": 1},
    {"name": "any-of", "of": "gradcam-ae,update-consensus", "gradcam-ae": {"epochs": 5}},
)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A folder per defense with its run, and what one process without tffl makes of the maps."""
    base = tmp_path_factory.mktemp("served")
    folders = [base / options["name"] for options in DEFENSES]
    for folder, options in zip(folders, DEFENSES, strict=True):
        tffl.simulate({**SETTING, "defense": options}, folder / "run")
        (shown,) = RunDirectory.open(folder / "run").shown(2)[1]
        np.save(folder / "maps.npy", shown.maps)
    script = [sys.executable, "-c", BARE, *map(str, folders)]
    subprocess.run(script, check=True, cwd=base, capture_output=True)
    return base


@pytest.mark.parametrize("options", DEFENSES, ids=lambda options: options["name"])
def test_a_bare_tensorflow_process_scores_maps_as_the_run_did(served, options):
    run = served / options["name"] / "run"
    folder = run / "export" / "detector"
    result = np.load(run.parent / "out.npz")
    assert np.isfinite(result["reconstruction"]).all()
    about = json.loads((folder / "detector.json").read_text())
    assert about["layer"] == "conv2"
    count = options.get("probes", 1)
    assert len(about["classes"]) == count
    assert np.load(folder / "probes.npy").shape[0] == count
    for file in folder.glob("*.keras"):
        assert keras.models.load_model(file).name == "autoencoder"
    assert len(list(folder.glob("*.keras"))) == (2 if count == 8 else 1)

    if options["name"] == "any-of":
        return  # its scores and threshold are not those of its part
    rounds, clients = RunDirectory.open(run).frames()
    scores = clients[clients["round"] == 2]["score"]
    np.testing.assert_allclose(result["score"], scores, rtol=1e-3)
    np.testing.assert_allclose(about["threshold"], rounds["threshold"].iloc[-1], rtol=1e-6)
