"""Scans and audits from names and paths, with cheap checks before TensorFlow is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tffl.config import part_options
from tffl.core.errors import require
from tffl.core.layout import WeightLayout
from tffl.core.process import silence
from tffl.defenses import Defense, create_defense, defenses
from tffl.defenses.gan_audit import GanAudit
from tffl.record.run_directory import RunDirectory
from tffl.scan.audit import DEFENSE, AuditResult, audit_folder, audit_run
from tffl.scan.image_source import ImageSource
from tffl.scan.scanner import Scanner, usual_defenses
from tffl.untrusted.global_model import find_global, load_global
from tffl.untrusted.global_variables import GlobalVariables
from tffl.untrusted.model_folder import file_names

if TYPE_CHECKING:
    from tffl.core.pixels import PixelRange


@dataclass(frozen=True)
class Inputs:
    """The inputs of a scan or an audit of a folder.

    Attributes:
      global_model: The user's own model from which the clients started, as a file or a run.
      folder: A folder with one model per client.
      images: Where images come from; None for no images.
      pixels: As `Scanner` takes it.
      imports: Modules of the user's own to import first, which register layers of the model.
    """

    global_model: Path
    folder: Path
    images: ImageSource | None = None
    pixels: PixelRange | None = None
    imports: Sequence[str] = ()

    def check(self) -> None:
        """Checks, without TensorFlow, that everything is there.

        Raises:
          UsageError: There is no such model or folder, or the dataset is unknown or not prepared.
        """
        find_global(self.global_model)
        file_names(self.folder)
        if self.images is not None:
            self.images.check()

    def load(self) -> tuple[Any, Any]:
        """Returns the global model, and its images as `Samples`, None if there are none."""
        from tffl.models.own import import_modules

        import_modules(self.imports)
        model = load_global(self.global_model)
        return model, None if self.images is None else self.images.load(model)


def make_scanner(
    inputs: Inputs,
    names: Sequence[str] = (),
    settings: Sequence[str] = (),
    seed: int | None = None,
) -> Scanner:
    """Returns a scanner of a folder.

    Args:
      inputs: The model, the folder and the images; `pixels` only with images.
      names: Of defenses; if there are none, those that suit the images and the model.
      settings: Such as `"defense.k=2"`: an option of every defense that has it.
      seed: As `Scanner` takes it.

    Raises:
      UsageError: A name or an option does not exist, a value is out of range, or there is no such
        file, folder or dataset.
    """
    with_images = inputs.images is not None
    chosen = choose_defenses(names, settings, with_images)
    require(inputs.pixels is None or with_images, "--pixels belongs to --dataset: give one")
    inputs.check()
    model, samples = inputs.load()
    if not names:
        own = isinstance(model, GlobalVariables)
        layout = model.layout if own else WeightLayout.of(model)
        usual = usual_defenses(samples is not None, layout)
        chosen = {name: chosen[name] for name in usual}
    return Scanner(model, chosen, samples, seed, inputs.pixels)


def choose_defenses(
    names: Sequence[str], settings: Sequence[str], with_images: bool
) -> dict[str, Defense]:
    """Returns name → defense with its options.

    Args:
      names: Of defenses; if there are none, the usual ones.
      settings: Such as `"defense.k=2"`: an option of every defense that has it.
      with_images: Whether there are images.

    Raises:
      UsageError: A name or an option does not exist, or a value is out of range.
    """
    options = part_options(settings, "defense")["defense"]
    shared = defenses.shared_options(names or usual_defenses(with_images), options)
    return {name: create_defense(name, own) for name, own in shared.items()}


def make_auditor(
    source: str | None, settings: Sequence[str], options: Mapping[str, Any] | None = None
) -> GanAudit:
    """Returns the defense `gan-audit`.

    Args:
      source: Where its audit images come from; the options' or its default if None.
      settings: Such as `"defense.gan_steps=100"`.
      options: What the settings override.

    Raises:
      UsageError: An option does not exist, or a value is out of range.
    """
    chosen = {**(options or {}), **part_options(settings, "defense")["defense"]}
    if source is not None:
        chosen["source"] = source
    defense: GanAudit = create_defense(DEFENSE, chosen)  # type: ignore[assignment]
    return defense


def _auditor_of_one_round(source: str | None, settings: Sequence[str]) -> GanAudit:
    """Returns an auditor that judges the first round, which is the only one here."""
    defense = make_auditor(source, settings)
    first = defense.from_round
    require(first == 1, f"defense.from_round = {first} belongs to an experiment: leave it out")
    return defense


def audit_files(
    inputs: Inputs, source: str | None, settings: Sequence[str], seed: int | None = None
) -> AuditResult:
    """Audits a folder of models with generated images.

    Args:
      inputs: The model, the folder, and the images that the server has.
      source: As `make_auditor` takes it.
      settings: As `make_auditor` takes them.
      seed: Of all random choices; drawn at random if None.

    Raises:
      UsageError: An option or a file does not exist, or a source needs images and there are none.
    """
    defense = _auditor_of_one_round(source, settings)
    inputs.check()
    model, samples = inputs.load()
    return audit_folder(model, inputs.folder, defense, samples, seed, inputs.pixels)


def audit_stored_round(
    path: Path, round: int, source: str | None, settings: Sequence[str]
) -> AuditResult:
    """Audits the updates that a run has stored of a round, with generated images.

    Raises:
      UsageError: An option does not exist, or the run has not stored that round.
      TfflError: A file is damaged.
    """
    defense = _auditor_of_one_round(source, settings)
    run = RunDirectory.open(path)
    run.check_stored(round)
    silence()
    return audit_run(run, round, defense)
