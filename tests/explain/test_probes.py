"""Which images are drawn as probes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tffl.data.samples import Samples
from tffl.explain.maps import PREDICTED
from tffl.explain.probes import draw


def make_samples(m=60, classes=5, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (m, 8, 8, 1), dtype=np.uint8)
    return Samples(images, rng.integers(0, classes, m).astype(np.int32), classes)


@given(st.integers(0, 99), st.integers(1, 20))
def test_every_group_is_as_balanced_as_it_can_be(seed, count):
    labels = np.repeat(np.arange(5, dtype=np.int32), 10)
    samples = Samples(np.zeros((50, 8, 8, 1), np.uint8), labels, 5)
    probes = draw(samples, count, seed)
    for begin in range(0, count, 5):
        group = probes.classes[begin : begin + 5]
        assert len(np.unique(group)) == len(group)


def test_probes_differ_and_carry_their_labels():
    samples = make_samples()
    probes = draw(samples, 60, seed=1)
    assert len(np.unique(probes.images.reshape(60, -1), axis=0)) == 60
    for image, label in zip(probes.images, probes.classes, strict=True):
        (row,) = np.flatnonzero((samples.images == image).all(axis=(1, 2, 3)))
        assert samples.labels[row] == label


def test_the_seed_decides_and_a_round_draws_others():
    samples = make_samples()
    first, again = draw(samples, 8, seed=1), draw(samples, 8, seed=1)
    assert (first.images == again.images).all()
    assert (first.images != draw(samples, 8, seed=2).images).any()
    assert (first.images != draw(samples, 8, seed=1, round=3).images).any()


def test_class_rules():
    samples = make_samples()
    assert (draw(samples, 3, 1, rule="predicted").classes == PREDICTED).all()
    assert (draw(samples, 3, 1, rule="fixed", fixed=4).classes == 4).all()


def test_probes_are_resized():
    assert draw(make_samples(), 3, 1, size=20).images.shape == (3, 20, 20, 1)
