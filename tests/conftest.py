"""TensorFlow as a run sets it up, with four logical CPU devices, before any test starts it."""

import os

os.environ["CUDA_VISIBLE_DEVICES"] = ""

from tffl.federated.runtime import configure

configure(devices=4)
