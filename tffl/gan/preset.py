"""The experiment of Zhao et al., small enough to run on two cores in a few minutes.

10 of 30 clients take part in a round. One of them is malicious: it flips one class into another and
scales its update by 10, which replaces the average. The paper does not give its factor; with 3 or 5
the flip has little effect on the global model here. The paper has 100 clients with 600 images each,
and audits from round 400 (MNIST) or 600 (Fashion-MNIST) on; here the audit starts after a third of
the rounds. The flipped class is the paper's: 1 → 7 for digits, T-shirt → pullover for
Fashion-MNIST.
"""

from __future__ import annotations

from typing import Any

FLIPS = {"fashion_mnist": (0, 2)}
"""Dataset → (flipped class, new label); all other datasets flip 1 → 7."""


def preset(dataset: str) -> dict[str, Any]:
    """Returns the experiment on a dataset, as nested values of a config."""
    source, target = FLIPS.get(dataset, (1, 7))
    return {
        "data": {
            "dataset": dataset,
            "image_size": 32,
            "train_limit": 9000,
            "test_limit": 2000,
        },
        "federation": {
            "clients": 30,
            "participants": 10,
            "malicious": 3,
            "malicious_participants": 1,
            "rounds": 24,
        },
        "model": {"name": "pdgan-cnn"},
        "training": {
            "optimizer": "adam",
            "learning_rate": 1e-3,
            "batch_size": 32,
            "local_epochs": 1,
        },
        "attack": {
            "name": "label-flip",
            "source": source,
            "target": target,
            "scale": 10.0,
        },
        "defense": {
            "name": "gan-audit",
            "source": "gan",
            "from_round": 9,
            "gan_steps": 100,
            "gan_batch": 32,
        },
    }
