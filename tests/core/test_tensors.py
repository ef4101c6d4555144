"""Arrays on disk, where the disk refuses."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import numpy as np
import pytest

from tffl.core.errors import TfflError
from tffl.core.tensors import read_tensors, write_tensors


def test_what_the_system_refuses_is_told_as_the_system_tells_it(tmp_path: Path) -> None:
    """`tffl simulate` tells a full disk, after which a run can go on, by this number."""
    file, before = tmp_path / "a.safetensors", resource.getrlimit(resource.RLIMIT_FSIZE)
    write_tensors(file, {"x": np.zeros(3)}, {})
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(TfflError, match=f"a.safetensors: {os.strerror(errno.EFBIG)}") as error:
            write_tensors(file, {"x": np.ones(10_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert isinstance(error.value.__cause__, OSError)
    assert error.value.__cause__.errno == errno.EFBIG
    assert not read_tensors(file)[0]["x"].any()
    assert os.listdir(tmp_path) == [file.name]
