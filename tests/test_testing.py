"""Every registered defense and attack passes the common checks, and broken ones do not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from tffl.attacks import attacks, create_attack
from tffl.attacks.base import Attack, State
from tffl.attacks.model_attack import ModelAttack
from tffl.core.errors import UsageError
from tffl.core.updates import Updates
from tffl.core.verdict import Verdict
from tffl.data.federation import ClientData, Federation
from tffl.defenses import create_defense, defenses
from tffl.defenses.base import Defense
from tffl.defenses.detector import Detector
from tffl.defenses.server import Server
from tffl.testing import check_attack, check_defense

JOINED_DEFENSES = ("nnm+krum", "bucketing+multi-krum", "flcert+fldetector")
JOINED_ATTACKS = ("label-flip+scaling", "patch-backdoor+lie")

QUICK = {"probes": 20, "group": 20, "epochs": 5}
OPTIONS: dict[str, dict[str, Any]] = {
    "all-of": {"of": ["bias-anomaly", "median"], "bias-anomaly": {"window": 3, "votes": 2}},
    "any-of": {"of": "multi-krum,update-consensus", "multi-krum": {"malicious": 2}},
    "cam-consensus": QUICK,
    "deepsight": {"noise_images": 50},
    "gan-audit": {"images": 20, "inversion_steps": 3},
    "gradcam-ae": {"epochs": 5, "window": 2, "votes": 2},
    "layercam-ae": {"epochs": 5},
    "shield": {"cam-consensus": QUICK, "probe-loss": {"probes": 20}},
    "a3fl": {"search_epochs": 2, "adversarial_epochs": 1},
    "adaptive-cam": {"steps": 2},
    "adaptive-coalition": {"steps": 2, "halvings": 1},
    "graph-autoencoder": {"epochs": 3},
    "iba": {"search_epochs": 1},
    "semantic-backdoor": {"indices": [5, 17, 99], "target": 3},
}
"""What a defense or attack needs, or makes it quick."""

SKIPPED = {
    "none": ("not finite",),  # FedAvg averages whatever it gets
    "bucketing": ("permutation",),  # draws lots, as the next four do
    "bucketing+multi-krum": ("permutation",),
    "cam-consensus": ("permutation",),
    "shield": ("permutation",),
    "nnm+krum": ("permutation",),  # clients with the same neighbors tie
}


@pytest.mark.parametrize("name", [*defenses, *JOINED_DEFENSES])
def test_every_defense_passes(name: str) -> None:
    defense = create_defense(name, OPTIONS.get(name, {}))
    check_defense(defense, name=name, skip=SKIPPED.get(name, ()))


@pytest.mark.parametrize("name", [*attacks, *JOINED_ATTACKS])
def test_every_attack_passes(name: str) -> None:
    check_attack(create_attack(name, OPTIONS.get(name, {})), name=name)


@dataclass(frozen=True)
class Norms(Detector):
    """A sound defense, of which others break something."""

    factor: float = 2.0

    def score(self, updates: Updates, server: Server) -> np.ndarray:
        return updates.norms()

    def threshold(self, scores: np.ndarray) -> float:
        known = scores[np.isfinite(scores)]
        return self.factor * float(np.median(known)) if len(known) else float("nan")


class Narrow(Norms):
    def judge(self, updates: Updates, server: Server, state: State) -> tuple[Verdict, State]:
        verdict, state = super().judge(updates, server, state)
        return replace(verdict, scores=verdict.scores.astype(np.float32)), state


class Silent(Norms):
    def judge(self, updates: Updates, server: Server, state: State) -> tuple[Verdict, State]:
        verdict, state = super().judge(updates, server, state)
        kept = verdict.scores > verdict.scores.min()
        return replace(verdict, accepted=kept), state


class Writing(Norms):
    def score(self, updates: Updates, server: Server) -> np.ndarray:
        updates.matrix[:] -= updates.matrix.mean(axis=0)
        return updates.norms()


class Random(Norms):
    def score(self, updates: Updates, server: Server) -> np.ndarray:
        return np.random.random(len(updates))  # noqa: NPY002


class FirstIsWorst(Norms):
    def score(self, updates: Updates, server: Server) -> np.ndarray:
        return np.arange(len(updates))[::-1].astype(np.float64)


class Counting(Norms):
    """Remembers a Python number."""

    def judge(self, updates: Updates, server: Server, state: State) -> tuple[Verdict, State]:
        verdict, after = super().judge(updates, server, state)
        return verdict, {**after, "rounds": updates.round}  # type: ignore[dict-item]


class Forgetful(Norms):
    """Hides its memory from the checkpoint."""

    def judge(self, updates: Updates, server: Server, state: State) -> tuple[Verdict, State]:
        verdict, after = super().judge(updates, server, state)
        known = "hidden" in getattr(state, "__dict__", {})
        scores = verdict.scores * (2 if known else 1)
        remembered = type("Remembered", (dict,), {})(after)
        remembered.hidden = True
        return replace(verdict, scores=scores), remembered


class Needy(Norms):
    def score(self, updates: Updates, server: Server) -> np.ndarray:
        return updates.norms() / np.partition(updates.norms(), 4)[4]


class Averaging(Norms):
    def judge(self, updates: Updates, server: Server, state: State) -> tuple[Verdict, State]:
        verdict, state = super().judge(updates, server, state)
        return replace(verdict, aggregate=updates.deltas.mean(axis=0)), state


class Mute(Norms):
    def options(self) -> dict[str, Any]:
        return {"window": self.window}


BROKEN_DEFENSES = [
    (Narrow(), r"verdict: scores is float32 \[12\], and should be float64 \[12\]"),
    (Silent(), "verdict: a client is not accepted, and no reason is given"),
    (Writing(), "inputs: judge writes to updates.matrix"),
    (Random(), "determinism: the same round, judged again, differs in .*scores"),
    (FirstIsWorst(), "permutation: scores depend on the order"),
    (Counting(), r"state: state\['rounds'\] is a int"),
    (Forgetful(), "state: round 2, after its state was stored and read, differs in scores"),
    (Needy(), "few clients: check allows 1 clients, and judge raises ValueError"),
    (Averaging(), "not finite: aggregate is not finite"),
    (Mute(factor=3.0), "options: what options.. returns makes another one$"),
    (create_defense("multi-krum", {"malicious": 6}), "inputs: it raises UsageError"),
]


@pytest.mark.parametrize(("defense", "message"), BROKEN_DEFENSES)
def test_broken_defenses_are_caught(defense: Defense, message: str) -> None:
    with pytest.raises(AssertionError, match=f"^{message}") as error:
        check_defense(defense)
    assert "\n" not in str(error.value)


def test_sound_ones_are_not() -> None:
    check_defense(Norms(factor=3.0))
    check_attack(Echo(from_round=3))
    with pytest.raises(UsageError, match="unknown check 'permutations': did you mean"):
        check_defense(Norms(), skip=["permutations"])
    with pytest.raises(UsageError, match="give a tffl defense to check, not the class Norms: call"):
        check_defense(Norms)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="give a tffl attack to check, not a Norms"):
        check_attack(Norms())  # type: ignore[arg-type]


@dataclass(frozen=True)
class Echo(ModelAttack):
    """A sound attack, of which others break something."""

    def craft(
        self, updates: Updates, malicious: np.ndarray, adversary: Any, state: State
    ) -> tuple[np.ndarray, State]:
        return -updates.deltas[malicious], state


class Careless(Echo):
    def send(
        self, updates: Updates, malicious: np.ndarray, adversary: Any, state: State
    ) -> tuple[np.ndarray | None, State]:
        return 2 * updates.deltas, state


class Overwriting(Echo):
    def craft(
        self, updates: Updates, malicious: np.ndarray, adversary: Any, state: State
    ) -> tuple[np.ndarray, State]:
        updates.matrix[malicious] *= -1
        return updates.deltas[malicious], state


class Spy(Echo):
    def craft(
        self, updates: Updates, malicious: np.ndarray, adversary: Any, state: State
    ) -> tuple[np.ndarray, State]:
        return -updates.deltas.mean(axis=0, keepdims=True), state


class Weigher(Echo):
    def craft(
        self, updates: Updates, malicious: np.ndarray, adversary: Any, state: State
    ) -> tuple[np.ndarray, State]:
        return updates.deltas[malicious] / updates.sample_counts.sum(), state


class Dice(Echo):
    def craft(
        self, updates: Updates, malicious: np.ndarray, adversary: Any, state: State
    ) -> tuple[np.ndarray, State]:
        return np.random.random((1, updates.layout.size)), state  # noqa: NPY002


class Lazy(Echo):
    def craft(
        self, updates: Updates, malicious: np.ndarray, adversary: Any, state: State
    ) -> tuple[np.ndarray, State]:
        return updates.deltas[malicious], state


class Always(Echo):
    def active(self, round: int) -> bool:
        return True


class Lists(Echo):
    def init(self, adversary: Any) -> State:
        return {"seen": [1, 2]}  # type: ignore[dict-item]


class Everybody(Attack):
    def poison(self, federation: Federation, malicious: np.ndarray, seed: int) -> Federation:
        changed: Mapping[int, ClientData] = {
            client: ClientData(data.indices, 9 - data.labels)
            for client, data in enumerate(federation.clients)
        }
        return federation.with_clients(changed)


class Vandal(Attack):
    def poison(self, federation: Federation, malicious: np.ndarray, seed: int) -> Federation:
        federation.images[0] = 0
        return federation


BROKEN_ATTACKS = [
    (Careless(), r"send: what send returns is float32 \[12, \d+\], and should be float32 \[3, "),
    (Overwriting(), "inputs: send writes to updates.matrix"),
    (Lazy(), "send: changes_updates.. is true, and no row changes"),
    (Dice(), "determinism: rows differ when the round is played again"),
    (Weigher(), "knowledge: it reads honest clients' sample counts, and does not declare it"),
    (Spy(), "knowledge: it reads honest clients' updates, and does not declare it"),
    (Always(), "schedule: with"),
    (Lists(), r"state: state\['seen'\] is a list"),
    (Everybody(), "poison: the data of honest client 0 changes"),
    (Vandal(), "poison: poison writes to the dataset"),
]


@pytest.mark.parametrize(("attack", "message"), BROKEN_ATTACKS)
def test_broken_attacks_are_caught(attack: Attack, message: str) -> None:
    with pytest.raises(AssertionError, match=f"^{message}") as error:
        check_attack(attack)
    assert "\n" not in str(error.value)


def test_rules_on_rows_are_checked_without_tensorflow() -> None:
    code = (
        "import sys, tffl.testing, tffl.defenses\n"
        "tffl.testing.check_defense(tffl.defenses.Median(), name='median')\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
