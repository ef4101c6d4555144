import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tffl.core.atomic import (
    make_free_folder,
    remove_left_overs,
    replacing,
    write_bytes,
    write_text,
)
from tffl.core.errors import TfflError


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_replaces_the_content_and_leaves_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "new" / "a.txt"
    write_text(file, "one\r\nüber\n")
    write_text(file, "two\r\nüber\n")
    assert file.read_bytes() == "two\r\nüber\n".encode()
    assert os.listdir(file.parent) == ["a.txt"]


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "old")
    monkeypatch.setattr(os, function, full)
    with pytest.raises(TfflError, match=r"cannot write .*a\.txt: No space left on device") as error:
        write_text(file, "new")
    assert "\n" not in str(error.value)
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_write_that_stops_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    write_bytes(file, b"old")
    with pytest.raises(KeyboardInterrupt), replacing(file) as temporary:
        temporary.write_bytes(b"ne")
        raise KeyboardInterrupt
    assert file.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_folder_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TfflError, match=r"cannot write .*file/a\.txt: (Not a dir|File exists)"):
        write_text(tmp_path / "file" / "a.txt", "new")


def test_replaces_a_whole_folder(tmp_path: Path) -> None:
    for content in ("old", "new"):
        with replacing(tmp_path / "folder") as temporary:
            (temporary / "deep").mkdir(parents=True)
            (temporary / "deep" / content).write_text(content)
    assert [file.name for file in (tmp_path / "folder" / "deep").iterdir()] == ["new"]
    assert os.listdir(tmp_path) == ["folder"]


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.txt") as first, replacing(tmp_path / "a.txt") as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "a.txt").read_text() == "first"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_left_overs_of_killed_writes_can_be_removed(tmp_path: Path) -> None:
    for name in (".tmp-12ab34cd-a.txt", ".tmp-12ab34cd-b.txt"):
        (tmp_path / name).write_text("half")
    remove_left_overs(tmp_path / "a.txt")
    assert os.listdir(tmp_path) == [".tmp-12ab34cd-b.txt"]
    remove_left_overs(tmp_path / "*")
    assert not os.listdir(tmp_path)


def test_free_folders_are_made_once_each(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(make_free_folder, [tmp_path / "runs" / "one"] * 20))
    assert sorted(made) == sorted((tmp_path / "runs").iterdir()) and len(made) == 20
    (tmp_path / "file").write_text("")
    with pytest.raises(TfflError, match=r"cannot make .*file/one: "):
        make_free_folder(tmp_path / "file" / "one")
