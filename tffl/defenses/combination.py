"""Several defenses at once: a client is rejected if any of them, or all of them, convict it.

    any-of   convicted_i = ∃ part: part convicts i      score_i = max over parts of r_i
    all-of   convicted_i = ∀ part: part convicts i      score_i = min over parts of r_i

    r_i = (s_i − c) / (τ − c),   c = median of the part's finite scores s,  τ = its threshold

    Δ = Σ n_i Δ_i / Σ n_i  over those that are not convicted

So 0 is an ordinary client of a part and 1 is where the part begins to flag, whatever its unit. r_i
is kept above 1 for clients that the part flags and at most 1 for others, also where its flags are
not a threshold on its scores. Where a part has no scores, no threshold, or one that its median
client exceeds, r_i is 2 for flagged clients and 0 for others.

Every part sees all clients of a round and keeps its own state; that another part convicts some of
them changes nothing for it. Parts convict by their own votes. Their averages and whom they accept
are not used: Krum contributes its suspects, although it averages a single client.

This is no published method.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np
from pydantic import BeforeValidator, Field

from tffl.core import states
from tffl.core.errors import UsageError, require
from tffl.core.layout import WeightLayout
from tffl.core.options import option_names
from tffl.core.updates import Updates
from tffl.core.verdict import NOT_FINITE, Judgment, Shown, Verdict
from tffl.defenses.base import Defense, State, sample_shares
from tffl.defenses.create import create_defense
from tffl.defenses.exports import DetectorExport
from tffl.defenses.server import Server

ABOVE = float(np.nextafter(1, 2))
"""The least relative score of a flagged client."""

AnyCombination = TypeVar("AnyCombination", bound="Combination")


def relative_scores(judgment: Judgment) -> np.ndarray:
    """Returns r_i, float64 `[n]`: above 1 for flagged clients, at most 1 for others, never NaN."""
    scores, flagged = judgment.scores, judgment.flagged
    by_flag = np.where(flagged, 2.0, 0.0)
    known = scores[np.isfinite(scores)]
    center = np.median(known) if len(known) else np.nan
    if not judgment.threshold > center:
        return by_flag
    with np.errstate(over="ignore", invalid="ignore"):
        result = (scores - center) / (judgment.threshold - center)
    result = np.where(np.isnan(result), by_flag, result)
    return np.where(flagged, np.maximum(result, ABOVE), np.minimum(result, 1.0))


def _split(value: Any) -> Any:
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_split), Field(min_length=1)]


@dataclass(frozen=True)
class Combination(Defense):
    """Combines the convictions of several defenses.

    A row with NaN or infinity is flagged and convicted, whatever the parts say.

    Attributes:
      of: Names of the parts, a list or separated by commas; each once. Options of a part stand in
        a table of its name: `--set defense.multi-krum.malicious=2`.
      enforce: With false the verdict is only observed: all are accepted and averaged as FedAvg
        does, NaN included. The option of the same name of a part has no effect.
      tables: The parts' options, by their names.
      parts: The parts.
    """

    of: Names
    enforce: bool = True
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, compare=False)
    parts: Mapping[str, Defense] = field(init=False)

    tables_field: ClassVar[str] = "tables"
    reference: ClassVar[str] = "tffl's own"
    usual: ClassVar[Mapping[str, Mapping[str, Any]]] = MappingProxyType({})
    """Options of parts that differ from their defaults, unless the tables say otherwise."""
    merge: ClassVar[np.ufunc]
    """The maximum of booleans is true if any is, and the minimum if all are."""

    def __post_init__(self) -> None:
        """Checks the options, and builds the parts."""
        super().__post_init__()
        twice = [name for name, count in Counter(self.of).items() if count > 1]
        require(not twice, f"defense.of names {', '.join(twice)} more than once")
        for name in self.tables:
            require(
                name in self.of,
                f"defense.{name} is not allowed: {name} is not among {', '.join(self.of)}",
            )
        parts = {
            name: _create(name, {**self.usual.get(name, {}), **self.tables.get(name, {})})
            for name in self.of
        }
        object.__setattr__(self, "parts", parts)

    @property
    def uses_model(self) -> bool:
        """Whether any part does."""
        return any(part.uses_model for part in self.parts.values())

    @property
    def tracks_clients(self) -> bool:
        """Whether any part does."""
        return any(part.tracks_clients for part in self.parts.values())

    @property
    def needs_history(self) -> bool:
        """Whether any part does."""
        return any(part.needs_history for part in self.parts.values())

    @property
    def judges_statistics(self) -> bool:
        """Whether any part does."""
        return any(part.judges_statistics for part in self.parts.values())

    def for_round(self: AnyCombination, participants: int, removed: int = 0) -> AnyCombination:
        """Gives every part the count of one round."""
        parts = {n: part.for_round(participants, removed) for n, part in self.parts.items()}
        return replace(self, tables={name: part.options() for name, part in parts.items()})

    def options(self) -> dict[str, Any]:
        """Returns its own options, and a table of options for each part."""
        own = [option for option in option_names(type(self)) if option != self.tables_field]
        tables = {name: part.options() for name, part in self.parts.items()}
        return {**{name: getattr(self, name) for name in own}, **tables}

    def declared_knowledge(self) -> tuple[str, ...]:
        """Returns what any part has."""
        return tuple(
            dict.fromkeys(
                word for part in self.parts.values() for word in part.declared_knowledge()
            )
        )

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Checks all parts."""
        for name, part in self.parts.items():
            with _about(name):
                part.check(participants, layout)

    def check_server(self, server: Server) -> None:
        """Checks all parts."""
        for name, part in self.parts.items():
            with _about(name):
                part.check_server(server)

    def init(self, server: Server) -> State:
        """Returns the parts' states, under their names."""
        return states.join({name: part.init(server) for name, part in self.parts.items()})

    def exports(self, server: Server, state: State) -> Mapping[str, DetectorExport]:
        """Returns what the parts have; if several have something, in folders of their names."""
        found = {n: p.exports(server, states.part(state, n)) for n, p in self.parts.items()}
        several = sum(map(bool, found.values())) > 1
        return {
            f"{folder}/{name}" if several else folder: export
            for name, exports in found.items()
            for folder, export in exports.items()
        }

    def judge(self, updates: Updates, server: Server, state: State) -> tuple[Verdict, State]:
        """Judges with all parts, and averages the accepted clients by their sample counts."""
        judgment, memory = self.suspect(updates, server, state)
        weights = sample_shares(updates, judgment.accepted)
        return Verdict.of(judgment, weights, updates.mean(weights)), memory

    def suspect(self, updates: Updates, server: Server, state: State) -> tuple[Judgment, State]:
        """Merges what all parts suspect."""
        finite, found, memory = updates.finite(), {}, {}
        for name, part in self.parts.items():
            found[name], memory[name] = part.suspect(updates, server, states.part(state, name))
        judgments = found.values()
        flagged = ~finite | self.merge.reduce([judgment.flagged for judgment in judgments])
        convicted = ~finite | self.merge.reduce([judgment.convicted for judgment in judgments])
        scores = self.merge.reduce([relative_scores(judgment) for judgment in judgments])
        judgment = Judgment(
            flagged=flagged,
            convicted=convicted,
            accepted=~convicted if self.enforce else np.ones(len(updates), dtype=bool),
            scores=np.where(finite, scores, np.inf),
            threshold=1.0 if finite.any() else np.nan,
            reasons=_reasons(found, finite, flagged | convicted),
            shown=_shown(found),
        )
        return judgment, states.join(memory)


@dataclass(frozen=True)
class AnyOf(Combination):
    """Rejects clients that any of several defenses convicts.

    >>> rows = np.array([[1.0, 2.0], [1.1, 1.9], [0.9, 2.1], [1.2, 2.0], [-9.0, 9.0]])
    >>> AnyOf(of="multi-krum,median").judge_rows(rows).accepted.tolist()
    [True, True, True, True, False]
    """

    merge: ClassVar[np.ufunc] = np.maximum


@dataclass(frozen=True)
class AllOf(Combination):
    """Rejects clients that all of several defenses convict.

    >>> rows = np.array([[1.0, 2.0], [1.1, 1.9], [0.9, 2.1], [1.2, 2.0], [-9.0, 9.0]])
    >>> AllOf(of=("multi-krum", "update-consensus")).judge_rows(rows).accepted.tolist()
    [True, True, True, True, False]
    """

    merge: ClassVar[np.ufunc] = np.minimum


def _create(name: str, options: Mapping[str, Any]) -> Defense:
    with _about(name):
        part = create_defense(name, options)
    require(
        part.models == 1,
        f"defense.of = {name} is not allowed: it keeps {part.models} global models, each with its "
        "own clients",
    )
    require(
        part.convicts,
        f"defense.of = {name} is not allowed: it names no suspects; choose defenses that do, such "
        "as multi-krum or bias-anomaly",
    )
    return part


@contextmanager
def _about(name: str) -> Iterator[None]:
    """Names the table of a part in messages about its options."""
    try:
        yield
    except UsageError as error:
        raise UsageError(str(error).replace("defense.", f"defense.{name}.")) from None


def _reasons(
    found: Mapping[str, Judgment], finite: np.ndarray, suspected: np.ndarray
) -> tuple[str, ...]:
    reasons = []
    for row in range(len(finite)):
        parts = [
            f"{name}: {judgment.reasons[row]}"
            for name, judgment in found.items()
            if judgment.flagged[row] or judgment.convicted[row]
        ]
        said = "; ".join(parts) if suspected[row] else ""
        reasons.append(said if finite[row] else NOT_FINITE)
    return tuple(reasons)


def _shown(found: Mapping[str, Judgment]) -> tuple[Shown, ...]:
    """Returns what all parts show; with the parts' names if two of them show the same kind."""
    kinds = [(type(one), one.part) for judgment in found.values() for one in judgment.shown]
    clash = len(set(kinds)) < len(kinds)
    return tuple(
        replace(one, part=f"{name}/{one.part}") if clash else one
        for name, judgment in found.items()
        for one in judgment.shown
    )
