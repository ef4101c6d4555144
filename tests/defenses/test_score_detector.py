"""A detector of parts judges as a class with the same parts does."""

from __future__ import annotations

import numpy as np
import pytest

import tffl
from tffl.core.updates import Updates
from tffl.defenses import Fixed, Gap, Highest, MedianMad, MultiKrum, ScoreDetector, Vote
from tffl.defenses.detector import Detector
from tffl.defenses.parts.thresholds import AllButLowest, MeanStd
from tffl.testing import check_defense

ROWS = np.array([[1.0], [1.1], [0.9], [1.0], [9.0]], np.float32)


def distances(updates: Updates) -> np.ndarray:
    return np.abs(updates.deltas - np.median(updates.deltas, axis=0)).sum(axis=1)


def test_it_keeps_every_promise_of_a_defense() -> None:
    detector = ScoreDetector(score=distances, vote=Vote(window=3, votes=2))
    check_defense(detector, skip=["options"])  # functions have no text that makes them again


def test_a_score_never_sees_rows_that_are_not_finite() -> None:
    rows = np.concatenate([ROWS, [[np.nan]]])
    verdict = ScoreDetector(score=distances).judge_rows(rows)
    assert verdict.accepted.tolist() == [True, True, True, True, False, False]
    assert verdict.reasons[4].startswith("score 8 is above ")
    nobody = ScoreDetector(score=distances).judge_rows(rows[5:])
    assert not nobody.accepted.any() and not nobody.aggregate.any()


def test_a_vote_is_kept_over_rounds_and_in_a_file(tmp_path) -> None:
    detector = ScoreDetector(score=Updates.norms, threshold=MedianMad(), vote=Vote(3, 2))
    session = tffl.Session(detector)
    judged = [session.judge(ROWS), session.judge(ROWS)]
    assert judged[1].reasons[4].endswith("flagged in 2 of its last 2 rounds")
    session.save(tmp_path / "session")
    again = tffl.Session(detector).load(tmp_path / "session").judge(ROWS[[4, 0, 1, 2, 3]])
    assert again.flagged.tolist() == [True, False, False, False, False]
    assert again.convicted.tolist() == [False, False, False, False, True]


def test_without_enforcement_it_only_observes() -> None:
    verdict = ScoreDetector(score=Updates.norms, enforce=False).judge_rows(ROWS)
    assert verdict.convicted[4] and verdict.accepted.all()


@pytest.mark.parametrize(
    ("threshold", "flagged"),
    [
        (MedianMad(k=3.5), [4]),
        (MeanStd(alpha=1), [4]),
        (Fixed(0.05), [1, 2, 4]),
        (Highest(2), [2, 4]),
        (Highest(0.2), [4]),
        (AllButLowest(3), [2, 4]),
        (Gap(seed=1), [4]),
        (lambda scores: 1.95, [4]),
    ],
)
def test_every_rule_fits(threshold, flagged) -> None:
    rows = np.array([[1.0], [1.1], [0.75], [1.01], [9.0]], np.float32)
    verdict = ScoreDetector(score=distances, threshold=threshold).judge_rows(rows)
    assert np.flatnonzero(verdict.flagged).tolist() == flagged


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Vote(window=2, votes=3), "votes = 3 is not allowed"),
        (lambda: Vote(window=0), "window = 0 is not allowed"),
        (lambda: MultiKrum(window=2, votes=3), "votes = 3 is not allowed"),
        (lambda: MedianMad(k=-1), "k = -1 is not allowed"),
        (lambda: ScoreDetector(score="norm"), "score = 'norm' is not allowed"),
        (lambda: ScoreDetector(score=distances, threshold=3.0), "threshold = 3.0 is not allowed"),
    ],
)
def test_parts_refuse_what_they_cannot_be(make, message: str) -> None:
    with pytest.raises(tffl.UsageError, match=message):
        make()


def raising(argument: object) -> float:
    raise KeyError("temperature")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"score": lambda updates: np.ones(2)},
            r"^score returns float64 \[2\]: .* \[5\], a number",
        ),
        ({"score": lambda updates: updates.deltas}, r"^score returns float32 \[5, 1\]: "),
        ({"score": lambda updates: None}, r"^score returns object \[\]: "),
        ({"score": raising}, "^score raises KeyError: 'temperature'$"),
        ({"threshold": lambda scores: None}, r"^threshold returns object \[\]: .* one number$"),
        ({"threshold": lambda scores: scores > 1}, r"^threshold returns bool \[5\]: "),
        ({"threshold": raising}, "^threshold raises KeyError: 'temperature'$"),
    ],
)
def test_a_part_that_fails_is_one_line(parts: dict, message: str) -> None:
    with pytest.raises(tffl.UsageError, match=message):
        ScoreDetector(**{"score": distances, **parts}).judge_rows(ROWS)


def test_a_detector_with_too_few_scores_is_one_line() -> None:
    class Short(Detector):
        threshold = MedianMad()

        def score(self, updates, server):
            return np.ones(2)

    with pytest.raises(tffl.UsageError, match=r"scores have shape \(2,\): give \(5,\)"):
        Short().judge_rows(ROWS)
