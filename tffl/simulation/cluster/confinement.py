"""TensorFlow's gRPC server listens on every interface, whatever its address says. This confines it.

The kernel lets a process filter what reaches its own sockets (Linux' `SO_ATTACH_FILTER`). The
filter here passes a packet only if it was sent to the loopback interface, or to one address of the
machine, which is what binding to it would mean. Packets to other addresses are dropped unseen.
"""

from __future__ import annotations

import ctypes
import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address

ANYWHERE = "0.0.0.0"
LOOPBACK = "127.0.0.1"

_ATTACH_FILTER = 26  # SO_ATTACH_FILTER of linux/socket.h
_NETWORK_HEADER = 0xFFF00000  # SKF_NET_OFF of linux/filter.h
_BYTE, _WORD, _AND, _EQUAL, _RETURN = 0x30, 0x20, 0x54, 0x15, 0x06


class Exposed(Exception):
    """A server cannot be confined on this system."""


@contextmanager
def confined(host: str = LOOPBACK) -> Iterator[None]:
    """Confines the servers that are started inside to an address of this machine and loopback.

    Args:
      host: IPv4 address; `0.0.0.0` confines nothing.

    Raises:
      Exposed: This is not Linux, or it does not allow filters; the servers listen everywhere.
    """
    before = set(_listening())
    yield
    if host == ANYWHERE:
        return
    for file in set(_listening()) - before:
        _attach(file, _filter(IPv4Address(host)))
    if not os.path.isdir("/proc/self/fd"):
        raise Exposed


def is_loopback(host: str) -> bool:
    """Says whether an IPv4 address is one of the loopback interface."""
    return IPv4Address(host).is_loopback


def _filter(host: IPv4Address) -> list[tuple[int, int, int, int]]:
    """Returns the filter's code: (operation, skip if true, skip if false, operand)."""
    return [
        (_BYTE, 0, 0, _NETWORK_HEADER),  # version and header length
        (_AND, 0, 0, 0xF0),
        (_EQUAL, 0, 5, 0x40),  # IPv4, else on to IPv6
        (_WORD, 0, 0, _NETWORK_HEADER + 16),  # destination
        (_EQUAL, 12, 0, int(host)),
        (_AND, 0, 0, 0xFF000000),
        (_EQUAL, 10, 0, 0x7F000000),  # 127.0.0.0/8
        (_RETURN, 0, 0, 0),
        (_WORD, 0, 0, _NETWORK_HEADER + 24),  # destination, which is to be ::1
        (_EQUAL, 0, 6, 0),
        (_WORD, 0, 0, _NETWORK_HEADER + 28),
        (_EQUAL, 0, 4, 0),
        (_WORD, 0, 0, _NETWORK_HEADER + 32),
        (_EQUAL, 0, 2, 0),
        (_WORD, 0, 0, _NETWORK_HEADER + 36),
        (_EQUAL, 1, 0, 1),
        (_RETURN, 0, 0, 0),
        (_RETURN, 0, 0, 0xFFFFFFFF),
    ]


def _attach(file: int, code: list[tuple[int, int, int, int]]) -> None:
    program = b"".join(struct.pack("HBBI", *line) for line in code)
    kept = ctypes.create_string_buffer(program, len(program))
    with socket.socket(fileno=os.dup(file)) as listener:
        try:
            header = struct.pack("HL", len(code), ctypes.addressof(kept))
            listener.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, header)
        except OSError:
            raise Exposed from None


def _listening() -> Iterator[int]:
    """Yields this process' descriptors of sockets that wait for TCP connections."""
    if not os.path.isdir("/proc/self/fd"):
        return
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            file = int(name)
            if stat.S_ISSOCK(os.fstat(file).st_mode) and _waits(file):
                yield file


def _waits(file: int) -> bool:
    with socket.socket(fileno=os.dup(file)) as one:
        internet = one.family in (socket.AF_INET, socket.AF_INET6)
        return internet and one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
