"""Hostile replies of Flower nodes, and what `DefendedStrategy` may make of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import strategies as st

from tffl.untrusted import Refused

from .files import Corpus, Damage, Edit, damages, edits, right, well_formed
from .outcome import Outcome, attempt, demand
from .rounds import LIES, SPECIAL

if TYPE_CHECKING:  # Flower may be missing where these modules are only collected
    from flwr.app import RecordDict

    from tffl.integrations.flower import DefendedStrategy

KEY = "num-examples"


@dataclass(frozen=True)
class Reply:
    """What a node sends: edited arrays, a damaged one, a claim, and odd records."""

    edits: tuple[Edit, ...]
    damage: Damage | None
    which: int
    samples: Any
    stype: str
    arrays: int
    metrics: int


sound = st.integers(1, 1_000_000)
lies = st.one_of(
    st.sampled_from([*LIES, *SPECIAL, 0, 10**6 + 1, 2**64]),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.lists(st.integers(0, 9), max_size=2),
    st.none(),
)
once = st.sampled_from([1, 1, 1, 1, 1, 1, 0, 2])
replies = st.builds(
    Reply,
    edits=st.lists(edits, max_size=2).map(tuple),
    damage=st.one_of(st.none(), damages),
    which=st.integers(0, 9),
    samples=st.one_of(sound, sound, lies),
    stype=st.sampled_from(["numpy.ndarray"] * 7 + ["pickle"]),
    arrays=once,
    metrics=once,
)


@cache
def strategy() -> DefendedStrategy:
    from untrusted.models import build

    from tffl.integrations.flower import DefendedStrategy

    model = build()
    result = DefendedStrategy("update-consensus", model=model, seed=0)
    result._start = result.layout.flatten(model.get_weights())
    result._keys = tuple(str(number) for number in range(len(result.layout.entries)))
    return result


def examine(reply: Reply, corpus: Corpus) -> Outcome | None:
    """Lets the strategy read a reply; None if Flower cannot even hold it."""
    from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict

    arrays = dict(corpus.arrays)
    for edit in reply.edits:
        arrays = edit.of(arrays)
    names = {entry.name: str(i) for i, entry in enumerate(corpus.expected.layout.entries)}
    try:
        record = {names.get(name, name): Array(array) for name, array in arrays.items()}
        if reply.damage and record:
            key = list(record)[reply.which % len(record)]
            old = record[key]
            record[key] = Array(old.dtype, old.shape, reply.stype, reply.damage.of(old.data))
        claim = {} if reply.samples is None else {KEY: reply.samples}
        content = RecordDict(
            {f"arrays{number}": ArrayRecord(record) for number in range(reply.arrays)}
            | {f"metrics{number}": MetricRecord(claim) for number in range(reply.metrics)}  # type: ignore[arg-type]
        )
    except (TypeError, ValueError):
        return None
    return attempt(lambda: _read(reply, content, arrays, corpus))


def _read(reply: Reply, content: RecordDict, arrays: dict, corpus: Corpus) -> None:
    server = strategy()
    message = SimpleNamespace(has_error=lambda: False, has_content=lambda: True, content=content)
    row = np.empty(server.layout.size, dtype=np.float32)
    answer = server._reader().read(0, [message], row)  # type: ignore[list-item]
    of_its_kind = all(array.dtype == np.float32 for array in arrays.values())
    wanted = right(arrays, corpus.expected) if of_its_kind and reply.damage is None else None
    honest = isinstance(reply.samples, int) and not isinstance(reply.samples, bool)
    honest = honest and 1 <= reply.samples <= server.max_samples
    if not answer.valid:
        demand(np.isnan(row).all(), "a malformed reply leaves more than NaN")
        intact = wanted is not None and honest and reply.arrays == reply.metrics == 1
        demand(not intact, f"a sound reply is refused: {answer.reason}")
        raise Refused(answer.reason)
    samples = answer.samples
    demand(samples is not None and 1 <= samples <= server.max_samples, f"{samples} samples")
    demand(samples == reply.samples and reply.samples is not True, f"{reply.samples!r} samples")
    well_formed(server._start + row, corpus.expected)
    if wanted is not None:
        demand(np.array_equal(row, wanted - server._start), "another update than was sent")
    else:
        demand(reply.damage is not None, "arrays that are not sound are accepted")
