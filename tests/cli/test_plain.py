"""Terminals and pipes whose encoding is ASCII or Latin-1: every command prints as it should."""

import io
import json
import os
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

from tffl_cli.main import COMMANDS, cli
from tffl_cli.plain import PlainStream, plain, plain_streams

CHARSETS = ("ascii", "latin-1")
CHEAP = (
    *([name, "--help"] for name in COMMANDS),
    ["list", "attacks"],
    ["list", "defenses"],
    ["list", "defenses", "--json"],
    ["list", "models", "--image-size", "8", "--channels", "1"],
    ["data", "list"],
    ["data", "show", "--dataset", "digits", "--clients", "3"],
    ["reproduce", "--list", "--no-times"],
)
OF_A_RUN = (
    ["explain", "RUN"],
    ["explain", "RUN", "--json"],
    ["localize", "RUN"],
    ["localize", "RUN", "--json"],
    ["compare", "RUN", "RUN/undefended", "--out", "OUT.png"],
    ["report", "RUN", "--out", "OUT.html"],
)
TINY = "data.train_limit=100 data.test_limit=50 record.export=false record.figures=false"
SIMULATE = ["simulate", "--clients", "5", "--rounds", "1", "--model", "lenet5"]
SIMULATE += [word for setting in TINY.split() for word in ("--set", setting)]
ATTACKED = ["--attack", "label-flip", "--malicious", "1", "--defense", "median"]


def prints_in(charset, *arguments):
    """Runs a command on a terminal of an encoding; returns exit code, stdout and stderr."""
    result = CliRunner(charset=charset).invoke(cli, list(map(str, arguments)))
    written = result.stdout_bytes.decode(charset), result.stderr_bytes.decode(charset)
    assert "UnicodeEncodeError" not in written[1]
    if "--json" not in arguments:  # where an escape is how a letter is written
        assert not re.search(r"\\[xu][0-9a-f]{2}", "".join(written))
    return result.exit_code, *written


@pytest.mark.parametrize("charset", CHARSETS)
@pytest.mark.parametrize("arguments", CHEAP, ids=" ".join)
def test_every_command_prints(charset, arguments):
    code, out, err = prints_in(charset, *arguments)
    assert code == 0, err
    assert out and not err
    if "--json" in arguments:
        assert json.loads(out)


@pytest.mark.parametrize("charset", CHARSETS)
@pytest.mark.parametrize("arguments", OF_A_RUN, ids=" ".join)
def test_commands_on_a_run_print(charset, arguments, compared, tmp_path):
    words = [word.replace("RUN", str(compared)) for word in arguments]
    words = [word.replace("OUT", str(tmp_path / "out")) for word in words]
    code, out, err = prints_in(charset, *words)
    assert code == 0, err
    assert out
    if "--json" in arguments:
        assert json.loads(out)


def test_a_comparison_prints_progress_and_tables(tmp_path):
    code, out, err = prints_in(
        "ascii", *SIMULATE, *ATTACKED, "--compare", "--out", tmp_path / "run"
    )
    assert code == 0, err
    assert "round 1/1 - accuracy" in err
    assert "-----" in out and "attack-free" in out and "Undefended, " in out


def test_json_prints_json(tmp_path):
    code, out, err = prints_in("ascii", *SIMULATE, "--json", "--out", tmp_path / "run")
    assert code == 0, err
    assert json.loads(out)["rounds"] == 1


def test_a_scan_keeps_its_exit_code(tmp_path):
    import keras

    model = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    model.save(tmp_path / "global.keras")
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "damaged.keras").write_bytes(b"PK\x03\x04 nothing more")
    code, out, err = prints_in(
        "ascii", "scan", "--global", tmp_path / "global.keras", "--updates", tmp_path / "inbox"
    )
    assert code == 3, err
    assert "damaged.keras" in out and "1 of 1 file suspect." in out


def test_an_error_is_its_own_line():
    code, _, err = prints_in("ascii", "simulate", "--dataset", "café")
    assert code == 2
    assert err.startswith("Error: unknown dataset 'cafe': ")


def test_the_installed_program_under_posix():
    done = subprocess.run(
        [sys.executable, "-m", "tffl", "list", "models"],
        capture_output=True,
        env={**os.environ, "LC_ALL": "POSIX", "PYTHONIOENCODING": "ascii"},
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.isascii() and b"resnet18" in done.stdout


@pytest.mark.parametrize(
    ("text", "encoding", "expected"),
    [
        ("accuracy 1 · – ─ 2 × 2 → …", "ascii", "accuracy 1 - - - 2 x 2 -> ..."),
        ("accuracy 1 · – ─ 2 × 2 → …", "latin-1", "accuracy 1 · - - 2 × 2 -> ..."),
        ("accuracy 1 · – ─ 2 × 2 → …", "utf-8", "accuracy 1 · – ─ 2 × 2 → …"),
        ("café 犬", "ascii", "cafe \\u72ac"),
        ("half \udce9", "utf-8", "half \\udce9"),
        ("half \udce9", "ascii", "half \\udce9"),
    ],
)
def test_plain_characters_in_the_place_of_others(text, encoding, expected):
    assert plain(text, encoding) == expected


def test_streams_come_back_after_a_command(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    with plain_streams():
        assert isinstance(sys.stdout, PlainStream)
        print("–", end="", flush=True)
    assert sys.stdout is stream
    assert stream.buffer.getvalue() == b"-"
