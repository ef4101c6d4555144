"""What is checked and chosen before a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tffl.config import Config, build
from tffl.core.errors import UsageError
from tffl.record.identity import resolved
from tffl.simulation.preparation import Job, check
from tffl.simulation.registries import HOMES, registry


def test_a_directory_that_was_made_for_nothing_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    job = Job.of(Config(), None)
    assert job.made and job.directory.is_dir() and not job.begun
    job.clean()
    assert not job.directory.exists()
    begun = Job.of(Config(), None)
    (begun.directory / "config.toml").write_text("seed = 0\n")
    begun.clean()
    assert begun.begun


def test_a_directory_of_the_user_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    job = Job.of(Config(), tmp_path / "mine")
    job.clean()
    assert not job.made and job.directory.is_dir()


def test_only_a_run_is_continued(tmp_path: Path) -> None:
    job = Job.of(Config(), None, tmp_path)
    assert job.resume and not job.resumes
    (tmp_path / "config.toml").write_text(resolved(build({"seed": 7})).to_toml())
    assert job.resumes
    with pytest.raises(UsageError, match="holds another experiment: seed is 7 there, 0 here"):
        job.check_directory()
    with pytest.raises(UsageError, match="two run directories"):
        Job.of(Config(), tmp_path / "other", tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": {"name": "lenet"}}, "did you mean 'lenet5'"),
        ({"attack": {"name": "label-flip", "sclae": 2}}, "did you mean 'scale'"),
        ({"defense": {"name": "kurm"}}, "did you mean 'krum'"),
        ({"data": {"dataset": "mnist", "data_dir": "nowhere"}}, "mnist is not prepared"),
    ],
)
def test_names_options_and_data_are_checked(values: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check(build(values))


@pytest.mark.parametrize("kind", HOMES)
def test_every_kind_has_a_registry(kind: str) -> None:
    assert registry(kind).kind == kind.removesuffix("s")


def test_a_misspelled_kind_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'attacks'"):
        registry("atacks")
