"""The runs of a benchmark for TensorBoard's plugin HParams: what was varied, and what came of it.

The messages are those of `tensorboard/plugins/hparams/plugin_data.proto`, declared here as far as
they are needed, because TensorFlow no longer brings the package tensorboard.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tffl.core.atomic import remove, tensorflow_writing
from tffl.drawing.guard import attempt
from tffl.record.tensorboard import metadata, write_scalar

PLUGIN = "hparams"
START, END = "_hparams_/session_start_info", "_hparams_/session_end_info"
VERSION, SUCCESS, FAILURE = 0, 1, 2


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

    with tensorflow_writing(folder):
        remove(folder)
        for name, (varied, metrics, well) in sessions.items():
            start = {"session_start_info": {"hparams": varied, "group_name": name}}
            started = attempt(f"TensorBoard's session {name}", _serialized, start)
            if started is None:
                continue
            writer = tf.summary.create_file_writer(str(folder / name))
            with writer.as_default():
                _write(START, started)
                for metric, value in metrics.items():
                    if value is not None and not math.isnan(value):
                        write_scalar(metric, value, 0)
                status = SUCCESS if well else FAILURE
                _write(END, _serialized({"session_end_info": {"status": status}}))
            writer.close()


def message() -> Any:
    """Returns a new, empty `HParamsPluginData`."""
    return _message_class()()


def _write(tag: str, data: bytes) -> None:
    import tensorflow as tf

    tf.summary.write(tag, tf.constant(0.0), 0, metadata(PLUGIN, data))


def _serialized(content: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Returns the bytes of an `HParamsPluginData`."""
    data = message()
    data.version = VERSION
    for part, values in content.items():
        target = getattr(data, part)
        for key, value in values.items():
            if key == "hparams":
                for name, one in value.items():
                    _set(target.hparams[name], one)
            else:
                setattr(target, key, value)
    return bytes(data.SerializeToString())


def _set(target: Any, value: Any) -> None:
    if isinstance(value, str):
        target.string_value = value
    else:
        target.number_value = float(value)


@cache
def _message_class() -> Any:
    """Declares the messages in a pool of their own, so that tensorboard may declare its own."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2

    field = descriptor_pb2.FieldDescriptorProto
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
    file = descriptor_pb2.FileDescriptorProto(
        name="tffl/hparams.proto",
        package="tffl.hparams",
        syntax="proto3",
        dependency=[struct_pb2.DESCRIPTOR.name],
    )

    def add(parent: Any, name: str, fields: Sequence[tuple[str, int, int, int, str]]) -> Any:
        declared = parent.add(name=name)
        for label, number, kind, many, type_name in fields:
            declared.field.add(
                name=label, number=number, type=kind, label=many, type_name=type_name or None
            )
        return declared

    one, many = field.LABEL_OPTIONAL, field.LABEL_REPEATED
    start = add(
        file.message_type,
        "SessionStartInfo",
        [
            ("hparams", 1, field.TYPE_MESSAGE, many, ".tffl.hparams.SessionStartInfo.HparamsEntry"),
            ("group_name", 4, field.TYPE_STRING, one, ""),
        ],
    )
    entry = add(
        start.nested_type,
        "HparamsEntry",
        [
            ("key", 1, field.TYPE_STRING, one, ""),
            ("value", 2, field.TYPE_MESSAGE, one, ".google.protobuf.Value"),
        ],
    )
    entry.options.map_entry = True
    # An enumeration and an int32 are the same bytes.
    add(file.message_type, "SessionEndInfo", [("status", 1, field.TYPE_INT32, one, "")])
    add(
        file.message_type,
        "HParamsPluginData",
        [
            ("version", 1, field.TYPE_INT32, one, ""),
            ("session_start_info", 3, field.TYPE_MESSAGE, one, ".tffl.hparams.SessionStartInfo"),
            ("session_end_info", 4, field.TYPE_MESSAGE, one, ".tffl.hparams.SessionEndInfo"),
        ],
    )
    pool.Add(file)
    found = pool.FindMessageTypeByName("tffl.hparams.HParamsPluginData")
    return message_factory.GetMessageClass(found)
