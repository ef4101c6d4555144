"""The runs of a benchmark for TensorBoard's plugin HParams: what was varied, and what came of it.

The messages are those of the package tensorboard. Its own `hparams` and `KerasCallback` name a
group by a hash, or need a Keras `fit`; here a group is a run, named as its folder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tffl.core.atomic import remove, tensorflow_writing
from tffl.drawing.guard import attempt
from tffl.record.tensorboard import metadata, write_scalar

if TYPE_CHECKING:
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData


def write(
    folder: Path, sessions: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any], bool]]
) -> None:
    """Writes one session per run, in place of whatever `folder` held.

    Args:
      folder: TensorBoard's log directory.
      sessions: Subfolder → what was varied, a text or a number each; the metrics, undefined ones
        being None or NaN; and whether the run ended well.

    Raises:
      TfflError: A file cannot be written.
    """
    import tensorflow as tf
    from tensorboard.plugins.hparams import metadata as plugin

    with tensorflow_writing(folder):
        remove(folder)
        for name, (varied, metrics, succeeded) in sessions.items():
            start = attempt(f"TensorBoard's session {name}", session_start, name, varied)
            if start is None:
                continue
            writer = tf.summary.create_file_writer(str(folder / name))
            with writer.as_default():
                _write(plugin.SESSION_START_INFO_TAG, start)
                for metric, value in metrics.items():
                    if value is not None and not math.isnan(value):
                        write_scalar(metric, value, 0)
                _write(plugin.SESSION_END_INFO_TAG, session_end(succeeded))
            writer.close()


def session_start(name: str, varied: Mapping[str, Any]) -> HParamsPluginData:
    """Returns the message that says what was varied, a text or a number each."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    data = HParamsPluginData()
    data.session_start_info.group_name = name
    for key, value in varied.items():
        field = data.session_start_info.hparams[key]
        if isinstance(value, str):
            field.string_value = value
        else:
            field.number_value = float(value)
    return data


def session_end(succeeded: bool) -> HParamsPluginData:
    """Returns the message that says how a session ended."""
    from tensorboard.plugins.hparams.api_pb2 import Status
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    data = HParamsPluginData()
    status = "STATUS_SUCCESS" if succeeded else "STATUS_FAILURE"
    data.session_end_info.status = Status.Value(status)
    return data


def _write(tag: str, data: HParamsPluginData) -> None:
    import tensorflow as tf
    from tensorboard.plugins.hparams import metadata as plugin

    data.version = plugin.PLUGIN_DATA_VERSION
    shown_by = metadata(plugin.PLUGIN_NAME, data.SerializeToString())
    tf.summary.write(tag, tf.constant(0.0), 0, shown_by)
