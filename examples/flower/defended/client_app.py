"""The node: it trains honestly, or attacks if it is malicious."""

from __future__ import annotations

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from defended.task import Task
from tffl.core import seeds

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Trains the global model on this node's part of the data."""
    task, number = Task.of(context.run_config), _number(context)
    start = message.content["arrays"].to_numpy_ndarrays()
    round = int(message.content["config"]["server-round"])
    attack = str(context.run_config["attack"]) if _malicious(context) else "none"

    images, labels = task.part(number, int(context.node_config["num-partitions"]))
    if attack == "label-flip":
        labels = task.data().classes - 1 - labels
    network = task.network()
    network.set_weights(start)
    task.train(images, labels, seeds.integer(task.seed, "training", round, number) % (1 << 31))
    weights = network.get_weights()
    if attack == "sign-flip":
        weights = [s - 4 * (w - s) for s, w in zip(start, weights, strict=True)]
    if attack == "nan":
        weights = [np.full_like(w, np.nan) for w in weights]

    metrics = MetricRecord({"num-examples": len(labels)})
    return _reply(message, RecordDict({"arrays": ArrayRecord(weights), "metrics": metrics}))


@app.query()
def query(message: Message, context: Context) -> Message:
    """Reports whether this node is malicious, for the example's table (a real one would lie)."""
    truth = {"part": _number(context), "malicious": int(_malicious(context))}
    return _reply(message, RecordDict({"truth": MetricRecord(truth)}))


def _reply(message: Message, content: RecordDict) -> Message:
    return Message(content, reply_to=message)


def _number(context: Context) -> int:
    return int(context.node_config["partition-id"])


def _malicious(context: Context) -> bool:
    """Returns whether this node attacks: its own config decides, or else the number of its part."""
    if context.run_config["attack"] == "none":
        return False
    by_number = _number(context) < int(context.run_config["malicious"])
    return bool(context.node_config.get("malicious", by_number))
