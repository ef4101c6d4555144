"""TensorFlow as a run sets it up, with four logical CPU devices, before any test starts it."""

import os

os.environ["CUDA_VISIBLE_DEVICES"] = ""

from tffl.federated.runtime import configure  # noqa: E402 (after the environment is set)

configure(devices=4)
