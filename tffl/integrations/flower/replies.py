"""The replies of nodes in a round, read and checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Message, RecordDict

from tffl.core.layout import WeightLayout
from tffl.core.updates import Updates
from tffl.core.weighting import Weighting, weighted_counts
from tffl.integrations.flower.arrays import flat_weights
from tffl.untrusted.refusal import Refused, printable


@dataclass(frozen=True)
class Reply:
    """The reply of one node.

    Attributes:
      client: The node's client number; None if it has none.
      reason: The reason why there is no update.
      malformed: Whether the reply cannot be used.
      samples: The number of samples that the node claims.
      content: The content of a valid reply.
    """

    client: int | None
    reason: str = ""
    malformed: bool = False
    samples: int | None = None
    content: RecordDict | None = None

    @property
    def valid(self) -> bool:
        """Whether the reply holds an update."""
        return self.content is not None

    @property
    def present(self) -> bool:
        """Whether the node sent anything other than an error."""
        return self.valid or self.malformed


@dataclass(frozen=True)
class ReplyReader:
    """Reads replies to one global model.

    Attributes:
      layout: The layout of the global model.
      keys: The names of its arrays in Flower's records, in the order of its variables.
      start: Its weights, float32 `[d]`.
      samples_key: The name of the metric that holds the number of samples.
      max_samples: The largest number of samples that a node may claim.
    """

    layout: WeightLayout
    keys: tuple[str, ...]
    start: np.ndarray
    samples_key: str
    max_samples: int

    def read(self, client: int, messages: Sequence[Message], row: np.ndarray) -> Reply:
        """Reads a node's update, or finds out what is wrong with its reply.

        Args:
          client: The node's client number.
          messages: The node's messages, of which there should be one.
          row: Receives the update, float32 `[d]`; NaN if the reply is malformed.
        """
        if not messages:
            return Reply(client, "no reply")
        if len(messages) == 1 and messages[0].has_error():
            error = messages[0].error
            return Reply(client, printable(f"error {error.code}: {error.reason}", 300))
        try:
            content = single_content(messages)
            samples = claimed_samples(content, self.samples_key, self.max_samples)
            row[:] = flat_weights(_single(content.array_records, "array"), self.keys, self.layout)
            with np.errstate(over="ignore"):
                row -= self.start
            if not np.isfinite(row).all():
                raise Refused("the update holds values beyond float32")
        except Refused as refused:
            row[:] = np.nan
            return Reply(client, f"malformed reply: {refused}", malformed=True)
        return Reply(client, samples=samples, content=content)

    def updates(
        self, round: int, replies: Sequence[Reply], matrix: np.ndarray, weighting: Weighting
    ) -> Updates:
        """Returns the updates of a round, without the nodes that did not reply.

        Args:
          round: The round, 1-based.
          replies: The reply for each row of the matrix.
          matrix: The rows that `read` has filled, float32 `[n, d]`; NaN for malformed replies.
          weighting: How a client's sample count becomes its weight in the average.
        """
        valid = np.array([reply.valid for reply in replies], dtype=bool)
        counts = np.array([reply.samples or 0 for reply in replies], dtype=np.int64)
        counts[valid] = weighted_counts(counts[valid], weighting)
        counts[~valid] = 0
        ids = np.array([reply.client for reply in replies], dtype=np.int64)
        everyone = Updates(round, ids, counts, self.start.copy(), matrix, self.layout)
        present = np.array([reply.present for reply in replies], dtype=bool)
        return everyone.select(present).read_only()


def by_node(messages: Iterable[Message]) -> dict[int, list[Message]]:
    """Returns the messages of each node, by Flower's id of the node."""
    result: dict[int, list[Message]] = {}
    for message in messages:
        result.setdefault(message.metadata.src_node_id, []).append(message)
    return result


def single_content(messages: Sequence[Message]) -> RecordDict:
    """Returns the content of a node's only message.

    Raises:
      Refused: There are several messages, or the only one is an error or empty.
    """
    if len(messages) > 1:
        raise Refused(f"{len(messages)} replies from one node")
    if messages[0].has_error():
        raise Refused(f"error {messages[0].error.code}: {messages[0].error.reason}")
    if not messages[0].has_content():
        raise Refused("it is empty")
    return messages[0].content


def claimed_samples(content: RecordDict, name: str, most: int) -> int:
    """Returns the number of samples that a node claims, `1 <= samples <= most`.

    Args:
      content: The content of the node's message.
      name: The name of the metric that holds the number.
      most: The largest plausible number.

    Raises:
      Refused: The number is missing, is not a whole number, or is out of range.
    """
    value = _single(content.metric_records, "metric").get(name)
    key = printable(name)
    if value is None:
        raise Refused(f"the metrics lack {key}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused(f"{key} is not a number")
    if isinstance(value, float) and not value.is_integer():  # also False for NaN and infinity
        raise Refused(f"{key} = {value} is not a number of samples")
    if not 1 <= value <= most:
        raise Refused(f"{key} = {printable(str(value), 24)} is not between 1 and {most}")
    return int(value)


def _single(records: Mapping[str, Any], kind: str) -> Any:
    if len(records) != 1:
        raise Refused(f"{len(records)} {kind} records: it should be one")
    return next(iter(records.values()))
