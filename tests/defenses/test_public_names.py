"""Every public class of `tffl.defenses` shows how it is used; doctest runs the examples."""

from __future__ import annotations

import doctest
import inspect

import pytest

import tffl.defenses
from tffl.defenses.create import score_name

CLASSES = [name for name in tffl.defenses.__all__ if inspect.isclass(getattr(tffl.defenses, name))]


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_has_an_example(name: str) -> None:
    text = vars(getattr(tffl.defenses, name)).get("__doc__") or ""
    found = doctest.DocTestParser().get_examples(text)
    assert any(name in example.source for example in found), f"{name} has no example of its own"


@pytest.mark.parametrize("name", CLASSES)
def test_no_class_is_six_deep(name: str) -> None:
    own = [c for c in getattr(tffl.defenses, name).__mro__ if c.__module__.startswith("tffl.")]
    assert len(own) <= 5, " < ".join(c.__name__ for c in own)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("layercam-ae", "reconstruction error"),
        ("median", "score of it"),
        ("nnm+gradcam-krum", "score of it"),
        ("a-plugin-of-another-machine", "score of it"),
    ],
)
def test_a_defense_says_what_its_scores_measure(name: str, expected: str) -> None:
    assert score_name(name, "score of it") == expected
