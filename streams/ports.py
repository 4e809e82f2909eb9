"""TCP ports: a free one, and whether something accepts at an address.
Asked before a Kafka client is made: the clients retry and log for many seconds where nobody listens.
"""

import socket


def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def accepts(address: str, timeout: float = 3.0) -> bool:
    """Whether anything accepts connections at host:port within `timeout` seconds."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=timeout):
            return True
    except OSError:
        return False
