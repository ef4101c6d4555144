"""Rules on plain matrices, and sessions: no experiment, and none of the heavy packages."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tffl
from tffl.core.layout import Entry, WeightLayout
from tffl.core.updates import Updates
from tffl.defenses import create_defense, defenses
from tffl.defenses.base import Defense
from tffl.defenses.server import make_server

ROWS = np.random.default_rng(0).normal(size=(12, 40)).astype(np.float32)
LAYOUT = WeightLayout((Entry("dense/kernel", (5, 6), True), Entry("dense/bias", (10,), True)))


def make(name: str) -> Defense:
    joined = name in ("any-of", "all-of")
    return create_defense(name, {"of": "multi-krum,update-consensus"} if joined else {})


PLAIN = [
    name
    for name in defenses
    if name != "flcert" and not make(name).uses_model and not make(name).declared_knowledge()
]


SPECIAL = ("bias-anomaly", "faa-dl", "flame", "freqfed", "lfighter", "mud-hog", "signguard")
"""Two need a layout; the others use scikit-learn, which imports pandas where there is one."""


@pytest.mark.parametrize("name", PLAIN)
def test_rows_are_judged_as_in_an_experiment(name: str) -> None:
    defense = make(name)
    verdict = defense.judge_rows(ROWS, layout=LAYOUT)
    server = make_server(LAYOUT, len(ROWS))
    updates = Updates.of_rows(ROWS, layout=LAYOUT)
    expected, _ = defense.judge(updates, server, defense.init(server))
    np.testing.assert_array_equal(verdict.aggregate, expected.aggregate)
    np.testing.assert_array_equal(verdict.accepted, expected.accepted)
    assert verdict.scores.shape == verdict.flagged.shape == verdict.weights.shape == (12,)
    assert len(verdict.reasons) == 12 and np.isfinite(verdict.aggregate).all()


def test_no_heavy_package_is_imported(tmp_path: Path) -> None:
    """Not even where TensorFlow, Keras, TFDS, tf-keras-vis and pandas are not installed."""
    script = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {{"tensorflow", "keras", "tensorflow_datasets", "tf_keras_vis"}}:
            raise ImportError(name + " is not installed")
sys.meta_path.insert(0, Missing())
import numpy as np
import tffl
from tffl.defenses import create_defense
rows = np.random.default_rng(0).normal(size=(12, 40))
for name in {PLAIN!r}:
    joined = name in ("any-of", "all-of")
    defense = create_defense(name, {{"of": "multi-krum,update-consensus"}} if joined else {{}})
    if name not in {SPECIAL!r}:
        defense.judge_rows(rows)
assert tffl.defenses.MultiKrum(malicious=2).judge_rows(rows).accepted.sum() == 10
print(sorted({{"pandas", "matplotlib", "tensorflow", "keras"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (np.zeros(5), {}, "give a matrix of numbers"),
        (np.zeros((0, 5)), {}, "give a matrix of numbers"),
        (np.array([["a"]]), {}, "give a matrix of numbers"),
        (ROWS, {"counts": [1, 2]}, "give 12 of them"),
        (ROWS, {"counts": np.full(12, -1)}, "a client claims -1 samples"),
        (ROWS, {"ids": np.arange(12)[::-1]}, "ascending"),
        (ROWS, {"ids": np.full(12, 0.5)}, "whole numbers"),
        (ROWS, {"layout": WeightLayout((Entry("w", (3,), True),))}, "layout has 3 columns"),
        ([[1.0, 2.0], [3.0]], {}, "rows differ in length"),
        (ROWS, {"layout": "lenet5"}, r"layout is a str: give .* tffl.layout_of\(model\)"),
        (ROWS, {"ids": np.arange(12) + 2**60}, "number the clients from 0 on"),
        (ROWS, {"start": np.zeros(3)}, r"give \(40,\)"),
        (ROWS, {"images": np.zeros((2, 8, 8, 1)), "labels": [0]}, "images need model="),
        (ROWS[:4], {}, "n > 2f"),
    ],
)
def test_what_does_not_fit_is_one_line(rows: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(tffl.UsageError, match=message):
        tffl.defenses.MultiKrum(malicious=2).judge_rows(rows, **options)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("probe-loss", "ProbeLoss looks at clients' models: give model="),
        ("gradcam-ae", "GradCamAe looks at clients' models: give model="),
        ("shield", "Shield looks at clients' models: give model="),
        ("fltrust", "FLTrust compares with the server's own update: give root_update="),
        ("flcert", "judge the rows of each by what stands behind it"),
        ("bias-anomaly", "has no bias"),
        ("lfighter", "has no kernel"),
    ],
)
def test_what_is_missing_is_named(name: str, message: str) -> None:
    with pytest.raises(tffl.UsageError, match=message):
        make(name).judge_rows(ROWS)


def test_what_is_needed_is_a_named_argument() -> None:
    from tffl.models.lenet import lenet5

    model = lenet5((12, 12, 1), 3, seed=1)
    layout = tffl.layout_of(model)
    rng = np.random.default_rng(0)
    rows = rng.normal(scale=0.01, size=(8, layout.size)).astype(np.float32)
    rows[5] *= 200
    images = rng.integers(0, 256, (40, 12, 12, 1)).astype(np.uint8)
    start = layout.flatten(model.get_weights())
    options = {"model": model, "images": images, "labels": np.arange(40) % 3}
    probe_loss = tffl.defenses.ProbeLoss(probes=20)
    verdict = probe_loss.judge_rows(rows, layout=layout, start=start, **options)
    assert verdict.scores.argmax() == 5
    own = probe_loss.judge_rows(rows, **options)  # layout and start are the model's
    np.testing.assert_array_equal(own.scores, verdict.scores)
    session = tffl.Session(probe_loss, **options)
    np.testing.assert_array_equal(session.judge(rows).scores, verdict.scores)
    floats = {**options, "images": images.astype(np.float32)}
    np.testing.assert_allclose(probe_loss.judge_rows(rows, **floats).scores, own.scores, rtol=1e-4)
    with pytest.raises(tffl.UsageError, match=r"images are float64: they should be uint8, .* or f"):
        probe_loss.judge_rows(rows, **{**options, "images": images / 255})
    floats["images"][3, 2, 1] = np.nan
    with pytest.raises(tffl.UsageError, match="hold NaN or infinity in 1 of 40 samples"):
        probe_loss.judge_rows(rows, **floats)
    with pytest.raises(tffl.UsageError, match=r"root_update has shape \(3,\)"):
        tffl.defenses.FLTrust().judge_rows(rows, root_update=np.ones(3))
    with pytest.raises(tffl.UsageError, match="ProbeLoss looks at images: give model=, images="):
        tffl.defenses.ProbeLoss(probes=20).judge_rows(rows, layout=layout, model=model)
    with pytest.raises(tffl.UsageError, match="give the model that the clients train"):
        tffl.defenses.ProbeLoss(probes=20).judge_rows(ROWS, model=model, layout=LAYOUT)
    trusted = tffl.defenses.FLTrust().judge_rows(rows, root_update=rows[:3].mean(axis=0))
    assert np.isfinite(trusted.aggregate).all()


class TestSession:
    def test_votes_are_remembered_and_kept_in_a_file(self, tmp_path: Path) -> None:
        def session() -> tffl.Session:
            defense = tffl.defenses.MultiKrum(malicious=2, window=4, votes=3)
            return tffl.Session(defense, layout=LAYOUT)

        rng = np.random.default_rng(1)
        rounds = [rng.normal(size=(12, 40)).astype(np.float32) for _ in range(6)]
        for rows in rounds:
            rows[[2, 7]] *= 5
        whole = session()
        verdicts = [whole.judge(rows) for rows in rounds]
        assert verdicts[-1].reasons[2].endswith("flagged in 4 of its last 4 rounds")
        first = session()
        for rows in rounds[:3]:
            first.judge(rows)
        first.save(tmp_path / "session.safetensors")
        second = session().load(tmp_path / "session.safetensors")
        assert second.round == 3
        for rows, expected in zip(rounds[3:], verdicts[3:], strict=True):
            verdict = second.judge(rows)
            np.testing.assert_array_equal(verdict.aggregate, expected.aggregate)
            assert verdict.reasons == expected.reasons

    def test_weights_follow_the_aggregates(self) -> None:
        session = tffl.Session(tffl.defenses.FedAvg(), learning_rate=0.5)
        for _ in range(3):
            session.judge(np.ones((4, 5), np.float32), counts=np.array([1, 2, 3, 4]))
        np.testing.assert_allclose(session.weights, np.full(5, 1.5))

    def test_what_does_not_go_on_is_one_line(self, tmp_path: Path) -> None:
        session = tffl.Session(tffl.defenses.MultiKrum(malicious=2))
        with pytest.raises(tffl.UsageError, match="no round has been judged"):
            session.save(tmp_path / "file")
        session.judge(ROWS)
        with pytest.raises(tffl.UsageError, match="client 12 is not registered: 12 are"):
            session.judge(ROWS, ids=np.arange(1, 13))
        session.save(tmp_path / "file")
        with pytest.raises(tffl.UsageError, match="is of another defense: MultiKrum"):
            tffl.Session(tffl.defenses.MultiKrum(malicious=1)).load(tmp_path / "file")

    @pytest.mark.parametrize(
        ("defense", "options", "message"),
        [
            ("multi-krum", {}, "'multi-krum' is no defense"),
            (tffl.defenses.MultiKrum, {}, "MultiKrum is no defense: give one, as MultiKrum()"),
            (tffl.defenses.FedAvg(), {"clients": 0}, "clients = 0 is not allowed"),
            (tffl.defenses.FedAvg(), {"clients": "12"}, "clients = '12' is not allowed"),
        ],
    )
    def test_what_it_cannot_be_is_said_at_once(self, defense, options, message: str) -> None:
        with pytest.raises(tffl.UsageError, match=re.escape(message)):
            tffl.Session(defense, **options)

    def test_updates_of_another_model_are_refused(self) -> None:
        session = tffl.Session(tffl.defenses.FedAvg())
        session.judge(Updates.of_rows(ROWS))
        with pytest.raises(tffl.UsageError, match="layout has 40 columns, and rows have 39"):
            session.judge(Updates.of_rows(ROWS[:, :39]))


def test_options_are_checked_when_one_is_made() -> None:
    with pytest.raises(tffl.UsageError, match=r"^malicious = 'banana' is not allowed: .* 20%$"):
        tffl.defenses.Krum(malicious="banana")
    with pytest.raises(tffl.UsageError, match=r"^poisoning_ratio = 2 is not allowed"):
        tffl.attacks.Lie(poisoning_ratio=2)
    assert tffl.defenses.Krum(malicious="30%").malicious == 0.3
    assert tffl.defenses.Krum(malicious=np.int64(2)).malicious == 2


def test_public_names_are_there() -> None:
    for room in (tffl.defenses, tffl.attacks):
        assert set(room.__all__) <= set(dir(room))
        for name in room.__all__:
            assert getattr(room, name) is not None
    with pytest.raises(AttributeError, match="Banana"):
        tffl.defenses.Banana  # noqa: B018
