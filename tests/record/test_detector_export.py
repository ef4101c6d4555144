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
import json, sys
import numpy as np, tensorflow as tf
folder, maps, out = sys.argv[1:]
served = tf.saved_model.load(folder + "/saved_model").signatures["serving_default"]
result = served(maps=tf.constant(np.load(maps)))
assert not any(name.startswith("tffl") for name in sys.modules)
np.savez(out, **{name: value.numpy() for name, value in result.items()})
"""


@pytest.mark.parametrize(
    "options",
    [
        {"name": "gradcam-ae", "epochs": 5},
        {"name": "layercam-ae", "variant": "released", "epochs": 5},
        {"name": "cam-consensus", "probes": 8, "group": 4, "epochs": 5, "folds": 1},
        {"name": "any-of", "of": "gradcam-ae,update-consensus", "gradcam-ae": {"epochs": 5}},
    ],
    ids=lambda options: options["name"],
)
def test_a_bare_tensorflow_process_scores_maps_as_the_run_did(tmp_path, options):
    tffl.simulate({**SETTING, "defense": options}, tmp_path / "run")
    folder = tmp_path / "run" / "export" / "detector"
    (shown,) = RunDirectory.open(tmp_path / "run").shown(2)[1]
    np.save(tmp_path / "maps.npy", shown.maps)
    script = [sys.executable, "-c", BARE, folder, tmp_path / "maps.npy", tmp_path / "out.npz"]
    subprocess.run(list(map(str, script)), check=True, cwd=tmp_path, capture_output=True)
    served = np.load(tmp_path / "out.npz")
    assert np.isfinite(served["reconstruction"]).all()
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
    rounds, clients = RunDirectory.open(tmp_path / "run").frames()
    scores = clients[clients["round"] == 2]["score"]
    np.testing.assert_allclose(served["score"], scores, rtol=1e-3)
    np.testing.assert_allclose(about["threshold"], rounds["threshold"].iloc[-1], rtol=1e-6)
