"""`tffl simulate`, end to end on the embedded digits."""

import errno
import json
import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from click.testing import CliRunner

import tffl
from tffl.config import Config, load
from tffl.simulation.preparation import Job
from tffl_cli.main import cli

SMALL = [
    *["simulate", "--dataset", "digits", "--train-limit", "200", "--clients", "4"],
    *["--malicious", "1", "--rounds", "2", "--model", "lenet5", "--batch-size", "16"],
    *["--attack", "label-flip", "--defense", "bias-anomaly", "--seed", "3"],
]
QUICK = ["--set", "record.tensorboard=false", "--set", "record.export=false"]
QUICK += ["--set", "record.figures=false"]

CONTRACT = (
    "config.toml",
    "environment.json",
    "rounds.csv",
    "clients.csv",
    "summary.json",
    "checkpoints",
    "tensorboard",
    "figures",
    "export/global/saved_model.pb",
    "export/global.keras",
)


def run(*arguments):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def tables(directory):
    read = [pd.read_csv(directory / name) for name in ("rounds.csv", "clients.csv")]
    return [frame.drop(columns=frame.filter(like="_seconds").columns) for frame in read]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run in its own directory, and what it printed."""
    directory = tmp_path_factory.mktemp("runs") / "whole"
    result = run(*SMALL, "--out", directory, "--store-updates", "2")
    assert result.exit_code == 0, result.output
    return directory, result


def test_leaves_every_file_of_the_contract(finished):
    directory, _ = finished
    assert [name for name in CONTRACT if not (directory / name).exists()] == []
    assert any((directory / "figures").glob("*.png"))
    assert len(pd.read_csv(directory / "rounds.csv")) == 2
    assert len(pd.read_csv(directory / "clients.csv")) == 8


def test_prints_a_table_and_where_the_run_is(finished):
    directory, result = finished
    rounds = pd.read_csv(directory / "rounds.csv")
    line = next(line for line in result.stdout.splitlines() if line.strip().startswith("round 2"))
    assert f"{rounds['accuracy'].iloc[-1] * 100:.1f}%" in line
    assert any(line.strip().startswith("mean ") for line in result.stdout.splitlines())
    assert result.stdout.endswith(f"The run is in {directory}\n")
    assert result.stderr.splitlines()[-1].startswith("round 2/2 · accuracy")


def test_command_line_is_recorded(finished):
    directory, _ = finished
    recorded = (directory / "environment.json").read_text()
    assert "--store-updates" in recorded and "label-flip" in recorded


def test_same_experiment_from_its_own_config_repeats_it(finished, tmp_path):
    directory, _ = finished
    again = run(
        *["simulate", "--config", directory / "config.toml", "--out", tmp_path / "again"],
        *["--json", *QUICK],
    )
    assert again.exit_code == 0, again.output
    for first, second in zip(tables(directory), tables(tmp_path / "again"), strict=True):
        pd.testing.assert_frame_equal(first, second)
    assert json.loads(again.stdout) == json.loads((tmp_path / "again/summary.json").read_text())
    assert again.stderr == ""


def test_occupied_directory_is_refused_and_left_alone(finished):
    directory, _ = finished
    before = (directory / "rounds.csv").read_bytes()
    result = run(*SMALL, "--out", directory)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert (directory / "rounds.csv").read_bytes() == before


def test_resume_needs_the_same_experiment(finished):
    directory, _ = finished
    result = run(*SMALL, "--resume", directory, "--batch-size", "9")
    assert result.exit_code == 2
    assert "holds another experiment: training.batch_size is 16 there, 9 here" in result.stderr


def test_resume_of_a_finished_run_changes_nothing(finished):
    directory, _ = finished
    before = [(directory / name).read_bytes() for name in ("rounds.csv", "clients.csv")]
    for options in ([], [*SMALL[1:], "--out", directory]):
        result = run("simulate", "--resume", directory, "--quiet", *options)
        assert result.exit_code == 0, result.output
        assert result.output == ""
    assert before == [(directory / name).read_bytes() for name in ("rounds.csv", "clients.csv")]


def test_out_and_resume_must_agree(tmp_path, finished):
    directory, _ = finished
    result = run("simulate", "--resume", directory, "--out", tmp_path)
    assert result.exit_code == 2 and "two run directories" in result.stderr


def test_nothing_to_resume(tmp_path):
    result = run("simulate", "--resume", tmp_path / "none")
    assert result.exit_code == 2
    assert f"begin one with --out {tmp_path / 'none'}" in result.stderr


def test_default_directory_names_defense_and_attack(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*SMALL, "--rounds", "1", *QUICK)
    assert result.exit_code == 0, result.output
    (directory,) = (tmp_path / "runs").iterdir()
    assert directory.name.endswith("-bias-anomaly-label-flip")
    assert (directory / "rounds.csv").exists()


def test_compare_tells_attack_catch_and_savings(tmp_path):
    out = tmp_path / "compared"
    result = run(*SMALL, "--compare", "--out", out, *QUICK, "--set", "attack.scale=3.0")
    assert result.exit_code == 0, result.output
    rows = [line.split()[0] for line in result.stdout.splitlines() if "%" in line]
    assert rows[:3] == ["attack-free", "undefended", "defended"]
    assert "Undefended, the attack" in result.stdout and "bias-anomaly caught" in result.stdout
    assert load(out / "attack-free/config.toml").federation.malicious_count == 0
    assert load(out / "undefended/config.toml").defense.name == "none"
    assert load(out / "config.toml").defense.name == "bias-anomaly"

    as_json = run("simulate", "--resume", out, "--compare", "--json")
    assert list(json.loads(as_json.stdout)) == ["attack-free", "undefended", "defended"]


def test_compare_needs_something_to_compare(tmp_path):
    result = run("simulate", "--compare", "--out", tmp_path / "x")
    assert result.exit_code == 2
    assert "a comparison needs an attack" in result.stderr


MISTAKES = {
    "defense": (["--defense", "bias_anomaly"], "did you mean 'bias-anomaly'"),
    "attack": (["--attack", "labelflip"], "did you mean 'label-flip'"),
    "dataset": (["--dataset", "cifr10"], "did you mean 'cifar10'"),
    "model": (["--model", "resnet180"], "did you mean 'resnet18'"),
    "unprepared": (["--dataset", "svhn_cropped", "--data-dir", "none"], "tffl data prepare"),
    "too many malicious": (["--malicious", "11", "--clients", "10"], "from 0 to 10"),
    "negative malicious": (["--malicious", "-1"], "from 0 to 10"),
    "beta": (["--partition", "dirichlet", "--beta", "0"], "greater than 0"),
    "partition": (["--partition", "dirichelt"], "'dirichlet'"),
    "rounds": (["--rounds", "0"], "federation.rounds"),
    "clients": (["--clients", "0"], "federation.clients"),
    "word for a number": (["--clients", "many"], "not a valid integer"),
    "learning rate": (["--learning-rate", "nan"], "training.learning_rate"),
    "no config": (["--config", "none.toml"], "cannot read config none.toml"),
    "bad config": (["--config", "bad.toml"], "is not valid TOML"),
    "unknown key": (["--set", "nonsense.key=1"], "unknown config key"),
    "no key": (["--set", "nonsense"], "section.key=value"),
    "value": (["--set", "attack.scale=banana", "--attack", "label-flip"], "'banana'"),
    "attack option": (["--set", "attack.sclae=2", "--attack", "label-flip"], "'scale'"),
    "quiet and json": (["--quiet", "--json"], "exclude each other"),
    "option": (["--defence", "none"], "No such option"),
    "out below a file": (["--rounds", "1", "--out", "bad.toml/run"], "bad.toml/run"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(name, tmp_path, monkeypatch):
    arguments, hint = MISTAKES[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.toml").write_text("rounds = [\n")
    result = run("simulate", "--out", "x", *arguments)
    assert result.exit_code in (1, 2)
    lines = [line for line in result.output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("Error: ")]
    assert len(errors) == 1 and len(lines) <= 3
    assert hint in errors[0]
    assert "Traceback" not in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["bad.toml"]


def stops(error):
    """A simulation that begins a run and then stops."""

    def simulate(config, out, **_):
        out.mkdir()
        (out / "config.toml").write_text(config.to_toml())
        raise error

    return simulate


@pytest.mark.parametrize("options", [[], ["--compare"]])
def test_ctrl_c_tells_how_to_resume(tmp_path, monkeypatch, options):
    monkeypatch.setattr(tffl, "simulate", stops(KeyboardInterrupt()), raising=False)
    out = tmp_path / "run"
    result = run(*SMALL, "--out", out, "--quiet", *options)
    command = " ".join(["tffl simulate --resume", str(out), *options])
    assert result.exit_code == 130
    assert result.stderr == f"Interrupted: continue with {command}\n"


def test_full_disk_tells_how_to_resume(tmp_path, monkeypatch):
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(tffl, "simulate", stops(full), raising=False)
    result = run(*SMALL, "--out", tmp_path / "run", "--quiet")
    assert result.exit_code == 1
    assert "the disk is full" in result.stderr and "--resume" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_quiet_program_is_silent_about_tensorflow_too(tmp_path):
    arguments = [*SMALL, "--rounds", "1", "--quiet", *QUICK, "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-m", "tffl", *arguments],
        capture_output=True,
        text=True,
        env={key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"},
        timeout=300,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_runs_begun_in_the_same_second_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tffl.simulation.preparation.time.strftime", lambda form: "20260101-120000")
    jobs = [Job.of(Config(), None) for _ in range(3)]
    names = ["20260101-120000-none-none" + end for end in ("", "-2", "-3")]
    assert [job.directory.name for job in jobs] == names
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == names


def test_a_refused_run_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    impossible = [*SMALL, "--defense", "krum", "--set", "defense.malicious=9"]
    for arguments in (["--defense", "krumm"], ["--quiet", "--json"]):
        assert run(*SMALL, *arguments).exit_code == 2
    assert os.listdir(tmp_path) == ["mine"]
    assert run(*impossible).exit_code == 2
    assert run(*impossible, "--out", "mine").exit_code == 2
    assert os.listdir(tmp_path / "runs") == []
    assert sorted(os.listdir(tmp_path)) == ["mine", "runs"]


def test_a_picture_that_fails_ends_no_run_and_is_named(tmp_path, monkeypatch):
    from tffl.drawing import figures
    from tffl.record import tensorboard

    def fail(*_):
        raise ValueError("Too many bins for data range")

    monkeypatch.setattr(figures, "scores", fail)
    monkeypatch.setattr(tensorboard, "buckets", fail)
    out = tmp_path / "run"
    result = run(*SMALL, "--rounds", "1", "--quiet", *QUICK[2:4], "--out", out)
    assert result.exit_code == 0, result.output
    assert (out / "figures" / "rounds.png").exists()
    lines = [line for line in result.stderr.splitlines() if "Too many bins" in line]
    assert len(lines) == 3 and all(line.startswith("Warning: ") for line in lines)
    assert sum(str(out / "figures" / "scores.png") in line for line in lines) == 1
    assert sum("TensorBoard's scores/malicious of round 1" in line for line in lines) == 1


def test_scores_of_1e20_end_no_run(tmp_path):
    arguments = ["--attack", "mpaf", "--defense", "multi-krum", "--clients", "8", "--seed", "7"]
    out = tmp_path / "run"
    result = run(
        *SMALL, *arguments, "--set", "attack.amplification=1e12", *QUICK[2:4], "--out", out
    )
    assert result.exit_code == 0, result.output
    assert pd.read_csv(out / "clients.csv")["score"].max() > 1e20
    assert "left out" not in result.stderr
    assert (out / "figures" / "scores.png").exists()


def test_a_checkpoint_of_another_model_is_said(finished, tmp_path):
    copy = shutil.copytree(finished[0], tmp_path / "changed")
    config = (copy / "config.toml").read_text()
    assert 'name = "lenet5"' in config
    (copy / "config.toml").write_text(config.replace('name = "lenet5"', 'name = "cnn"'))
    result = run("simulate", "--resume", copy)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith(
        "Error: the checkpoint of round 2 holds weights (1, 61706), but those of cnn are (1, "
    )
