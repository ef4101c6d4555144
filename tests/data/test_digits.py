import numpy as np

from tffl.data.digits import Digits


def test_shape_range_and_split():
    dataset = Digits().load(None)
    assert dataset.image_shape == (28, 28, 1)
    assert dataset.train_images.dtype == dataset.test_images.dtype == np.uint8
    assert dataset.train_labels.dtype == dataset.test_labels.dtype == np.int32
    assert dataset.train_images.min() == 0
    assert dataset.train_images.max() == 255
    assert len(dataset.train_labels) + len(dataset.test_labels) == 1797
    train, test = np.bincount(dataset.train_labels), np.bincount(dataset.test_labels)
    assert np.all(np.abs(test / (train + test) - 0.2) < 0.01)


def test_split_never_changes():
    first, second = Digits().load(None), Digits().load(None)
    assert np.array_equal(first.test_images, second.test_images)
    assert first.test_labels[:10].tolist() == second.test_labels[:10].tolist()


def test_no_test_image_is_a_training_image():
    dataset = Digits().load(None)
    train = {image.tobytes() for image in dataset.train_images}
    assert not any(image.tobytes() in train for image in dataset.test_images)


def test_a_linear_model_learns_the_digits():
    # The labels belong to the images: nothing else would let a linear model generalize.
    from sklearn.linear_model import LogisticRegression

    dataset = Digits().load(None)
    small = [
        images[:, ::4, ::4].reshape(len(images), -1) / 255.0
        for images in (dataset.train_images, dataset.test_images)
    ]
    model = LogisticRegression(max_iter=300).fit(small[0], dataset.train_labels)
    assert model.score(small[1], dataset.test_labels) > 0.9


def test_digits_are_always_prepared():
    assert Digits().prepared(None)
    assert Digits().prepare(None).is_file()
