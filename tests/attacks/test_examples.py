"""Every public class of `tffl.attacks` shows what it does, in an example that runs."""

from __future__ import annotations

import doctest
import sys

import pytest

import tffl

CLASSES = [name for name in tffl.attacks.__all__ if isinstance(getattr(tffl.attacks, name), type)]


def test_attacks_and_their_bases_are_public() -> None:
    bases = {
        "Attack",
        "DataAttack",
        "ModelAttack",
        "CommonRowAttack",
        "InformedAttack",
        "SuccessSet",
    }
    assert bases | {"LabelFlip", "SignFlip", "PatchBackdoor"} <= set(CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_the_example_of_a_class_runs(name: str) -> None:
    cls = getattr(tffl.attacks, name)
    names = dict(vars(sys.modules[cls.__module__]))
    example = doctest.DocTestParser().get_doctest(cls.__doc__, names, name, None, 0)
    shown = [step.source for step in example.examples if step.want]
    assert any(name in step.source for step in example.examples) and shown
    assert doctest.DocTestRunner(verbose=False).run(example).failed == 0
