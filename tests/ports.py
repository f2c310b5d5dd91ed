"""Ports for servers that must be told one, which nobody else takes before they listen."""

import random
import socket
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

GIVEN_OUT = Path("/proc/sys/net/ipv4/ip_local_port_range")
"""The ports that the kernel gives to whoever asks for any, and to connections: these can be gone a
moment later."""
_reserved: list[socket.socket] = []


def free_port(count: int = 1) -> int:
    """Return a free port of the loopback interface that the kernel gives to nobody, the first of
    `count` such ports.

    Other processes of the tests do not choose them either: this one holds a name for each until it
    ends.
    """
    first = int(GIVEN_OUT.read_text().split()[0]) if GIVEN_OUT.exists() else 49152
    for port in random.sample(range(first - 10_000, first - count), 1000):
        with suppress(OSError), ExitStack() as taken:
            names = [_take(taken, one) for one in range(port, port + count)]
            taken.pop_all()
            _reserved.extend(names)
            return port
    raise RuntimeError("no port of the loopback interface is free")


def _take(taken: ExitStack, port: int) -> socket.socket:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))
    name = taken.enter_context(socket.socket(socket.AF_UNIX))
    if sys.platform == "linux":
        name.bind(f"\0rag-index-test-port-{port}")
    return name
