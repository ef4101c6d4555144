"""Folders of images: layouts, modes of images, and everything that may be wrong with one."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tffl.config import DataConfig, build
from tffl.core.errors import TfflWarning, UsageError
from tffl.data.build import build_federation, located, source_of

NOBODY = np.empty(0, dtype=np.int64)


def test_a_share_of_each_class_is_kept_for_testing_the_same_each_time(folder, load) -> None:
    found = load(folder, test_share=0.4)
    assert found.name == "pictures/" and found.class_names == ("cat", "dog")
    assert found.train_images.shape == (6, 5, 6, 1) and found.train_images.dtype == np.uint8
    assert np.bincount(found.test_labels).tolist() == [2, 2]
    values = np.concatenate([found.train_images, found.test_images])[:, 0, 0, 0]
    assert sorted(values.tolist()) == sorted([*range(5)] * 2)
    np.testing.assert_array_equal(load(folder, test_share=0.4).test_images, found.test_images)


def test_train_and_test_are_taken_as_they_are(save, tmp_path: Path, load) -> None:
    for part, numbers in (("train", (1, 2, 3)), ("test", (8,))):
        for label in ("a", "b"):
            for number in numbers:
                save(tmp_path / part / label / f"{number}.png", number)
    (tmp_path / "train" / "a" / "notes.txt").write_text("no image")
    found = load(tmp_path)
    assert found.train_images[:, 0, 0, 0].tolist() == [1, 2, 3, 1, 2, 3]
    assert found.test_images[:, 0, 0, 0].tolist() == [8, 8]
    assert found.test_labels.tolist() == [0, 1]


def test_a_folder_per_client_is_the_natural_partition(save, tmp_path: Path, load) -> None:
    for client, count in (("alice", 6), ("bob", 4)):
        for label in ("a", "b"):
            for number in range(count):
                save(tmp_path / client / label / f"{number}.png", 100 * (client == "bob") + number)
    found = load(tmp_path)
    assert found.client_names == ("alice", "bob")
    config = build({"data": {"partition": "natural"}, "federation": {"clients": 2}})
    clients = build_federation(config, found, NOBODY).clients
    alice, bob = (found.train_images[client.indices, 0, 0, 0] for client in clients)
    assert alice.max() < 100 <= bob.min() and len(alice) + len(bob) == len(found.train_labels)
    with pytest.raises(UsageError, match=r"has 2 clients: set federation\.clients = 2, not 10"):
        build_federation(build({"data": {"partition": "natural"}}), found, NOBODY)
    save(tmp_path / "stray" / "1.png")
    with pytest.raises(UsageError, match="has folders of images beside folders of folders"):
        load(tmp_path)


def test_nothing_is_lost_where_images_are_converted(save, tmp_path: Path, load) -> None:
    for number, mode in enumerate(("L", "RGB", "RGBA", "1", "P", "LA")):
        for label in ("a", "b"):
            save(tmp_path / label / f"{number}.png", 255, mode=mode)
    found = load(tmp_path)
    assert found.train_images.shape[1:] == (5, 6, 3)
    pixels = np.concatenate([found.train_images, found.test_images])
    assert (pixels[:, 0, 0] == pixels[:, 4, 5]).all()
    assert (pixels == 255).all(axis=(1, 2, 3)).sum() >= 10  # a palette's color 255 may be another


@pytest.mark.parametrize(
    ("name", "mode", "message"),
    [
        ("clear.png", "RGBA", r"clear\.png is transparent in places: save it without an alpha"),
        ("print.jpg", "CMYK", r"print\.jpg is CMYK: save it as RGB"),
        ("deep.png", "I;16", r"deep\.png has 16 bits a channel: save it with 8"),
    ],
)
def test_what_cannot_be_converted_is_named(save, folder, load, name, mode, message) -> None:
    save(folder / "cat" / name, 3, mode=mode)
    with pytest.raises(UsageError, match=f"{message}.*; 1 of 11 images cannot be used") as caught:
        load(folder)
    assert "\n" not in str(caught.value) and "data.skip_broken=true" in str(caught.value)
    with pytest.warns(TfflWarning, match=f"1 of 11 images are skipped: .*{name}"):
        assert len(load(folder, skip_broken=True).train_labels) == 8


def test_color_of_16_bits_is_not_cut_to_8(folder: Path, load) -> None:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    rows = b"".join(b"\0" + b"\1\2" * 18 for _ in range(5))
    head = struct.pack(">IIBBBBB", 6, 5, 16, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    (folder / "dog" / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    with pytest.raises(UsageError, match=r"deep\.png has 16 bits a channel"):
        load(folder)


@pytest.mark.parametrize("content", [b"", b"no image at all"])
def test_a_broken_file_is_named(folder: Path, load, content: bytes) -> None:
    (folder / "dog" / "broken.png").write_bytes(content)
    with pytest.raises(UsageError, match=r"dog/broken\.png cannot be read \(.*; 1 of 11 images"):
        load(folder)


def test_a_truncated_image_is_named(save, folder: Path, load) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (5, 6), np.uint8)
    Image.fromarray(noise).save(folder / "dog" / "cut.jpg")
    whole = (folder / "dog" / "cut.jpg").read_bytes()
    (folder / "dog" / "cut.jpg").write_bytes(whole[:-20])
    with pytest.raises(UsageError, match=r"dog/cut\.jpg cannot be read \(OSError: .*truncated"):
        load(folder)


def test_sizes_that_differ_need_image_size(save, folder: Path, load) -> None:
    save(folder / "dog" / "wide.png", size=(9, 5))
    with pytest.raises(UsageError, match=r"differ in size: .* is 5 x 6, .*wide\.png 5 x 9: set"):
        load(folder)
    assert load(folder, image_size=8).train_images.shape[1:] == (8, 8, 1)


def test_classes_are_checked(save, tmp_path: Path, load) -> None:
    for number in range(4):
        save(tmp_path / "train" / "a" / f"{number}.png")
        save(tmp_path / "test" / "a" / f"{number}.png")
    with pytest.raises(UsageError, match="training samples of one class only, a: there should be"):
        load(tmp_path)
    save(tmp_path / "train" / "b" / "1.png")
    save(tmp_path / "test" / "owl" / "1.png")
    with pytest.raises(UsageError, match="only the test part has samples of class owl"):
        load(tmp_path)


def test_folders_without_images_say_how_they_should_look(save, tmp_path: Path, load) -> None:
    save(tmp_path / "lonely.png")
    with pytest.raises(UsageError, match="holds no images in folders of classes: it should look"):
        load(tmp_path)
    save(tmp_path / "test" / "a" / "1.png")
    with pytest.raises(UsageError, match="has a folder test/ but no train/"):
        load(tmp_path)


def test_a_path_is_found_from_elsewhere_and_a_name_wins(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    config = located(DataConfig(dataset="pictures"))
    monkeypatch.chdir("/")
    assert config.dataset == str(folder) and source_of(config).path == folder
    monkeypatch.chdir(folder.parent)
    folder.rename("digits")
    assert type(source_of(DataConfig(dataset="digits"))).__name__ == "Digits"
    assert type(source_of(DataConfig(dataset="./digits"))).__name__ == "ImageFolder"
    with pytest.raises(UsageError, match="there is no file or folder nowhere/here"):
        source_of(DataConfig(dataset="./nowhere/here"))
    (folder.parent / "a.txt").write_text("")
    with pytest.raises(UsageError, match=r"a\.txt is no kind of file that can be read"):
        source_of(DataConfig(dataset=str(folder.parent / "a.txt")))
