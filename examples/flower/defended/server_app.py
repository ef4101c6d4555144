"""The server: a tffl defense, or one of Flower's own strategies to compare it with."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, MultiKrum, Strategy
from flwr.serverapp.strategy.multikrum import select_multikrum

from defended.task import Task
from tffl.core.atomic import write_text
from tffl.integrations.flower import DefendedStrategy
from tffl.record.tables import to_csv

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Trains the model, and writes tables into `out` if it is set."""
    config, task = context.run_config, Task.of(context.run_config)
    network, data = task.network(), task.data()
    accuracies: list[dict[str, Any]] = []

    def evaluate(round: int, arrays: ArrayRecord) -> MetricRecord:
        network.set_weights(arrays.to_numpy_ndarrays())
        images = data.test_images.astype("float32")
        loss, accuracy = network.evaluate(images, data.test_labels, batch_size=200, verbose=0)
        accuracies.append({"round": round, "accuracy": accuracy, "loss": loss})
        return MetricRecord({"accuracy": float(accuracy)})

    out = Path(str(config["out"])) if config["out"] else None
    strategy = make_strategy(config, task, out)
    strategy.start(
        grid,
        ArrayRecord(network.get_weights()),
        num_rounds=int(config["num-server-rounds"]),
        evaluate_fn=evaluate,
        timeout=600,
    )
    if out is None:
        return
    if isinstance(strategy, LoggedMultiKrum):
        write_text(out / "clients.csv", to_csv(LoggedMultiKrum.COLUMNS, strategy.rows))
    if config["ask-nodes"]:
        truth = ask_for_the_truth(grid)
        write_text(out / "truth.csv", to_csv(("node", "part", "malicious"), truth))
    write_text(out / "accuracy.csv", to_csv(("round", "accuracy", "loss"), accuracies))


def make_strategy(config: Any, task: Task, out: Path | None) -> Strategy:
    """Returns the strategy that `defense` names."""
    nodes, name = int(config["nodes"]), str(config["defense"])
    common = {
        "fraction_evaluate": 0.0,
        "min_train_nodes": nodes,
        "min_available_nodes": nodes,
    }
    if name == "flower-fedavg":
        return FedAvg(**common)
    if name == "flower-multi-krum":
        attackers = int(config["malicious"])
        return LoggedMultiKrum(
            **common, num_malicious_nodes=attackers, num_nodes_to_select=nodes - attackers
        )
    return DefendedStrategy(
        name,
        model=task.network(),
        samples=task.server_samples(),
        seed=task.seed,  # makes the example repeatable; a real server keeps its seed secret
        out=out,
        **common,
    )


class LoggedMultiKrum(MultiKrum):
    """Flower's Multi-Krum, which also records the nodes that it averages."""

    COLUMNS = ("round", "node", "accepted")

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.rows: list[dict[str, Any]] = []

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Aggregates as Flower does."""
        replies = list(replies)
        sound = [message for message in replies if message.has_content()]
        chosen = select_multikrum(
            [message.content for message in sound],
            self.num_malicious_nodes,
            self.num_nodes_to_select,
        )
        self.rows += [
            {
                "round": server_round,
                "node": message.metadata.src_node_id,
                "accepted": any(message.content is content for content in chosen),
            }
            for message in sound
        ]
        return super().aggregate_train(server_round, replies)


def ask_for_the_truth(grid: Grid) -> list[dict[str, Any]]:
    """Returns which nodes are malicious according to themselves."""
    questions = [Message(RecordDict(), node, MessageType.QUERY) for node in grid.get_node_ids()]
    replies = grid.send_and_receive(questions, timeout=300)
    return sorted(
        (
            {"node": message.metadata.src_node_id, **message.content["truth"]}
            for message in replies
            if message.has_content()
        ),
        key=lambda row: row["part"],
    )
