"""TCP ports: a free one, and whether something accepts at an address.
Asked before a Kafka client is made: the clients retry and log for many seconds where nobody listens.
"""

import random
import socket
from pathlib import Path

LOWEST, HIGHEST = 16_384, 32_767
"""Ports that no system hands to outgoing connections by itself: one that is free now is free until its server binds it.
The kernel's own choice of a free port is of those, and was taken by a connection now and then.
"""
TRIES = 100
OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago, and that no outgoing connection takes."""
    draw = random.SystemRandom()  # a program that seeds its random numbers must not meet another that does
    for _ in range(TRIES if _lowest_outgoing() > HIGHEST else 0):
        if _free(port := draw.randint(LOWEST, HIGHEST)):
            return port
    return _bound(0)


def accepts(address: str, timeout: float = 3.0) -> bool:
    """Whether anything accepts connections at host:port within `timeout` seconds."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=timeout):
            return True
    except OSError:
        return False


def _lowest_outgoing() -> int:
    """The first port of outgoing connections; other systems than Linux begin at 49152."""
    try:
        return int(OUTGOING.read_text("ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 49_152


def _free(port: int) -> bool:
    try:
        return _bound(port) == port
    except OSError:
        return False


def _bound(port: int) -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))
        found: int = probe.getsockname()[1]
    return found
