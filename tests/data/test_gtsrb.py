import hashlib
import json
import zipfile

import numpy as np
import pytest

from tffl.core.errors import TfflError, UsageError
from tffl.data.tfds import Gtsrb

HEADER = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n"


def ppm(pixels):
    height, width, _ = pixels.shape
    return b"P6\n%d %d\n255\n" % (width, height) + pixels.tobytes()


def photo(border, sign):
    """Returns a 20x24 photograph: a sign of one color at rows 4-15, columns 5-18, on gray."""
    pixels = np.full((20, 24, 3), border, dtype=np.uint8)
    pixels[4:16, 5:19] = sign
    return pixels


ROW = "24;20;5;4;18;15"


@pytest.fixture
def archives(tmp_path, monkeypatch):
    """Returns archives as the official ones: two training classes with equal names, two tests."""
    from tffl.data import gtsrb

    paths = {key: tmp_path / f"{key}.zip" for key in gtsrb.ARCHIVES}
    with zipfile.ZipFile(paths["train"], "w") as archive:
        for label, sign in ((0, 200), (42, 90)):
            folder = f"GTSRB/Final_Training/Images/{label:05d}"
            names = [f"00000_{frame:05d}.ppm" for frame in range(3)]
            rows = "".join(f"{name};{ROW};{label}\n" for name in names)
            archive.writestr(f"{folder}/GT-{label:05d}.csv", HEADER + rows)
            for name in names:
                archive.writestr(f"{folder}/{name}", ppm(photo(10, sign)))
        archive.writestr("GTSRB/Readme-Images.txt", "not an image")
    with zipfile.ZipFile(paths["test"], "w") as archive:
        for name, sign in (("00000.ppm", 90), ("00001.ppm", 200)):
            archive.writestr(f"GTSRB/Final_Test/Images/{name}", ppm(photo(10, sign)))
        archive.writestr("GTSRB/Final_Test/Images/GT-final_test.test.csv", "Filename;Width\n")
    with zipfile.ZipFile(paths["test_labels"], "w") as archive:
        rows = f"00000.ppm;{ROW};42\n00001.ppm;{ROW};0\n"
        archive.writestr("GT-final_test.csv", HEADER + rows)
    for key, path in paths.items():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        monkeypatch.setitem(gtsrb.ARCHIVES, key, gtsrb.Archive(str(path), "sha256", digest))
    return paths


def test_official_archives_are_prepared(archives, tmp_path):
    data_dir = tmp_path / "data"
    source = Gtsrb()
    assert not source.prepared(data_dir)
    assert source.prepare(data_dir) == data_dir / "gtsrb" / "1.0.0"
    assert source.prepared(data_dir)

    dataset = source.load(data_dir)
    assert dataset.train_images.shape == (6, 32, 32, 3)
    assert dataset.test_images.shape == (2, 32, 32, 3)
    assert dataset.classes == 43
    # The label must stay with its picture, although both classes use the same file names.
    center = {0: 200, 42: 90}
    for images, labels in (
        (dataset.train_images, dataset.train_labels),
        (dataset.test_images, dataset.test_labels),
    ):
        assert sorted(set(labels.tolist())) == [0, 42]
        for image, label in zip(images, labels, strict=True):
            assert image[16, 16].tolist() == [center[int(label)]] * 3
            assert image[0, 0].tolist() == [10] * 3


def test_variants_set_size_and_crop(archives, tmp_path):
    source = Gtsrb("16x16-crop")
    assert source.prepare(tmp_path / "data") == tmp_path / "data/gtsrb/16x16-crop/1.0.0"
    dataset = source.load(tmp_path / "data")
    assert dataset.name == "gtsrb/16x16-crop"
    assert dataset.train_images.shape == (6, 16, 16, 3)
    assert set(dataset.train_images.ravel().tolist()) == {90, 200}  # no pixel of the border
    assert not Gtsrb().prepared(tmp_path / "data")


def test_a_wrong_checksum_stops_the_preparation(archives, tmp_path):
    with archives["train"].open("ab") as file:
        file.write(b"x")
    with pytest.raises(TfflError, match="instead of") as error:
        Gtsrb().prepare(tmp_path / "data")
    assert "\n" not in str(error.value)
    assert not Gtsrb().prepared(tmp_path / "data")


def test_official_digests_have_the_right_form():
    from tffl.data.gtsrb import ARCHIVES

    for archive in ARCHIVES.values():
        assert len(archive.digest) == 2 * hashlib.new(archive.algorithm).digest_size
        assert archive.url.startswith("https://")


def test_a_directory_written_by_tfds_is_read(archives, tmp_path):
    folder = Gtsrb().prepare(tmp_path / "data")
    info = json.loads((folder / "dataset_info.json").read_text())
    info["moduleName"] = "gtsrb"
    (folder / "dataset_info.json").write_text(json.dumps(info))
    assert len(Gtsrb().load(tmp_path / "data").train_labels) == 6


@pytest.mark.parametrize("variant", ["64", "64x32", "0x0", "64x64-roi", "../x"])
def test_unknown_variants_are_refused(variant):
    with pytest.raises(UsageError, match="gtsrb/64x64"):
        Gtsrb(variant)


def test_labels_are_the_official_class_numbers(archives, tmp_path):
    """Sorting folders or names as text would give 0, 1, 10, 11, … instead of 0, 1, 2, 3, …"""
    from tffl.data import gtsrb

    numbers = [0, 1, 2, 9, 10, 11, 20, 42]
    with zipfile.ZipFile(archives["train"], "w") as archive:
        for number in reversed(numbers):
            folder = f"GTSRB/Final_Training/Images/{number:05d}"
            rows = f"00000_00000.ppm;{ROW};{number}\n"
            archive.writestr(f"{folder}/GT-{number:05d}.csv", HEADER + rows)
            archive.writestr(f"{folder}/00000_00000.ppm", ppm(photo(10, 5 * number)))
    digest = hashlib.sha256(archives["train"].read_bytes()).hexdigest()
    gtsrb.ARCHIVES["train"] = gtsrb.Archive(str(archives["train"]), "sha256", digest)
    source = Gtsrb()
    source.prepare(tmp_path / "data")
    dataset = source.load(tmp_path / "data")
    assert sorted(dataset.train_labels.tolist()) == numbers
    assert (dataset.train_images[:, 16, 16, 0] == 5 * dataset.train_labels).all()
    assert dataset.classes == 43
    assert dataset.class_names == tuple(map(str, range(43)))
