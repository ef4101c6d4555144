"""The damage of an attack and the benefit of a defense: one experiment, run three ways.

| run | attackers | defense |
|---|---|---|
| attack-free | none: the same clients, all honest | as in the experiment |
| undefended | as in the experiment | none: plain FedAvg |
| defended | as in the experiment | as in the experiment |

The attack-free run measures attack success on the same images as the other two, as their baseline.
It also keeps the defense, so that it shows the false positives without an attacker.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tffl.callbacks.base import Callback
from tffl.config import ComponentConfig, Config, as_config
from tffl.core.errors import require
from tffl.core.measured import measured

if TYPE_CHECKING:
    import pandas as pd

    from tffl.simulation.run import Run

VARIANTS = ("attack-free", "undefended", "defended")
"""The three runs in the order of reports."""

MARGIN = 0.01
"""The smallest change of a rate that counts as an effect: one percentage point."""


@dataclass(frozen=True)
class Outcome:
    """The final rates of a run and the counts of its verdicts. Undefined rates are NaN.

    Attributes:
      accuracy: Accuracy on the test images after the last round.
      attack_success: Attack success after the last round.
      recall: Share of malicious updates that were convicted; mean over the rounds that define it.
      precision: Share of convicted updates that were malicious; mean over the same kind of rounds.
      fpr: Share of honest updates that were convicted; mean over the same kind of rounds.
      rejected: Updates left out of the average in all rounds.
      caught: Malicious updates convicted in all rounds.
      malicious: Malicious updates sent in all rounds.
      blamed: Honest updates convicted in all rounds.
      honest: Honest updates sent in all rounds.
      source: The images that attack success is measured on, `"test"` or `"train"`; empty if none.
    """

    accuracy: float
    attack_success: float
    recall: float
    precision: float
    fpr: float
    rejected: int
    caught: int
    malicious: int
    blamed: int
    honest: int
    source: str = ""

    @property
    def ruined(self) -> bool:
        """Whether the model has no accuracy to compare, because its outputs are not finite."""
        return math.isnan(self.accuracy) or bool(self.source and math.isnan(self.attack_success))

    @classmethod
    def of(cls, rounds: pd.DataFrame, summary: Mapping[str, Any]) -> Outcome:
        """Reads the outcome of a run from its `rounds` and `summary`."""
        last = rounds.iloc[-1]
        caught, blamed = (int(rounds[key].sum()) for key in ("true_positives", "false_positives"))
        return cls(
            accuracy=float(last["accuracy"]),
            attack_success=float(last["attack_success"]),
            recall=float(rounds["recall"].mean()),
            precision=float(rounds["precision"].mean()),
            fpr=float(rounds["fpr"].mean()),
            rejected=int(rounds["rejected"].sum()),
            caught=caught,
            malicious=caught + int(rounds["false_negatives"].sum()),
            blamed=blamed,
            honest=blamed + int(rounds["true_negatives"].sum()),
            source=str(summary.get("attack_success_source") or ""),
        )


def last_and_mean(rounds: pd.DataFrame) -> tuple[pd.Series[Any], pd.Series[Any]]:
    """Returns the last row of `rounds.csv`, and the means of its columns over all rounds.

    Rounds in which the model is ruined have no accuracy: a mean of the others would flatter it, so
    that the means of accuracy and attack success are NaN then. Rounds without evaluation do not
    count.
    """
    means = rounds.mean(numeric_only=True)
    of_model = ["accuracy", "attack_success"]
    evaluated = measured(rounds, "accuracy")[of_model].astype(float)
    means[of_model] = evaluated.mean(skipna=False)
    return rounds.iloc[-1], means


def variants(config: Config) -> dict[str, Config]:
    """Returns the three configs to run, by name.

    Raises:
      UsageError: The experiment has no attacker or no defense, so there is nothing to compare.
    """
    attacked = config.attack.name != "none" and config.federation.malicious_count > 0
    require(
        attacked and config.defense.name != "none",
        "a comparison needs an attack, at least one malicious client and a defense: "
        f"attack = {config.attack.name}, malicious = {config.federation.malicious_count}, "
        f"defense = {config.defense.name}",
    )
    honest = config.federation.model_copy(update={"malicious": 0})
    return {
        "attack-free": config.model_copy(update={"federation": honest}),
        "undefended": config.model_copy(update={"defense": ComponentConfig()}),
        "defended": config,
    }


def compare(
    config: Config | Mapping[str, Any] | Path | str,
    out: Path | str | None = None,
    *,
    resume: bool = False,
    watch: Callable[[str], Sequence[Callback]] = lambda variant: (),
    command: Sequence[str] = (),
) -> dict[str, Run]:
    """Runs an experiment defended, undefended and attack-free.

    Args:
      config: The experiment: a `Config`, nested values for one, or a TOML file.
      out: The run directory of the defended run; the other two are `undefended` and `attack-free`
        inside it.
      resume: Whether to continue the runs that are already there.
      watch: Returns the callbacks of a variant.
      command: As for `tffl.simulate`.

    Returns:
      Variant → run, in the order of `VARIANTS`.

    Raises:
      UsageError: There is nothing to compare, or one of the runs is impossible.
    """
    from tffl import simulate
    from tffl.simulation.simulation import carry_out

    configs = variants(as_config(config))
    runs = {}
    # The defended run comes first, because its directory contains the others.
    for variant in reversed(VARIANTS):
        folder = variant_directory(out, variant)
        # `simulate` warns of settings without effect; once is enough.
        run = simulate if variant == "defended" else carry_out
        runs[variant] = run(
            configs[variant],
            folder,
            resume=resume and folder is not None and (folder / "config.toml").exists(),
            callbacks=watch(variant),
            command=command,
        )
    return {variant: runs[variant] for variant in VARIANTS}


def variant_directory(out: Path | str | None, variant: str) -> Path | None:
    """Returns the run directory of a variant; None if the runs are not written."""
    if out is None:
        return None
    return Path(out) if variant == "defended" else Path(out) / variant


def conclusion(outcomes: Mapping[str, Outcome], defense: str) -> str:
    """Sums up in one sentence the attack's damage, the updates caught, and the defense's benefit.

    Args:
      outcomes: Variant → outcome.
      defense: The name of the defense.
    """
    free, undefended, defended = (outcomes[variant] for variant in VARIANTS)
    if free.ruined:
        return (
            "Even without an attacker the model is ruined (its outputs are not finite), so this "
            "says nothing about the attack or the defense; "
            f"{defense} {_catch(defended)}."
        )
    return (
        f"Undefended, {_damage(free, undefended)}; {defense} {_catch(defended)}, "
        f"which {_savings(undefended, defended)}."
    )


def _damage(free: Outcome, undefended: Outcome) -> str:
    if undefended.ruined:
        return "the attack ruined the model (its outputs are not finite)"
    effects = []
    if undefended.accuracy < free.accuracy - MARGIN:
        change = _change(free.accuracy, undefended.accuracy)
        effects.append(f"cut accuracy from {change}")
    if undefended.attack_success > free.attack_success + MARGIN:
        change = _change(free.attack_success, undefended.attack_success)
        effects.append(f"raised its success from {change}")
    if effects:
        return f"the attack {' and '.join(effects)}"
    return "the attack did no measurable damage"


def _catch(defended: Outcome) -> str:
    caught, blamed = defended.caught or "none", defended.blamed or "none"
    return (
        f"caught {caught} of {defended.malicious} malicious updates and "
        f"blamed {blamed} of {defended.honest} honest ones"
    )


def _savings(undefended: Outcome, defended: Outcome) -> str:
    if defended.ruined:
        return "saved nothing: the defended model is ruined" + (" too" * undefended.ruined)
    if undefended.ruined:
        return f"saved the model: it ends {_final_rates(defended)}"
    gain = defended.accuracy - undefended.accuracy
    relief = undefended.attack_success - defended.attack_success
    success = _change(undefended.attack_success, defended.attack_success)
    saved = []
    if gain > MARGIN:
        saved.append(f"restored {gain * 100:.1f} points of accuracy")
    if relief > MARGIN:
        saved.append(f"cut attack success from {success}")
    cost = []
    if gain < -MARGIN:
        cost.append(f"lost {-gain * 100:.1f} points of accuracy")
    if relief < -MARGIN:
        cost.append(f"let attack success rise from {success}")
    benefit = " and ".join(saved) or "saved nothing measurable"
    return f"{benefit} but {' and '.join(cost)}" if cost else benefit


def _final_rates(run: Outcome) -> str:
    accuracy = f"with accuracy {percent(run.accuracy)}"
    if math.isnan(run.attack_success):
        return accuracy
    return f"{accuracy} and attack success {percent(run.attack_success)}"


def _change(before: float, after: float) -> str:
    return f"{percent(before)} to {percent(after)}"


def percent(rate: float) -> str:
    """Formats a rate in percent; an undefined rate is a dash.

    >>> percent(0.9876), percent(float("nan"))
    ('98.8%', '–')
    """
    return "–" if math.isnan(rate) else f"{rate * 100:.1f}%"
