"""A port that nobody else will be given before it is used."""

import os
import random
import socket

BELOW_THE_KERNELS_OWN = range(20_000, 32_000)
"""Port 0, and every connection, takes one of the kernel's range, from 32,768 on: what was free a moment ago
may be gone when a server that takes seconds to start binds it."""
_ports = random.Random(os.getpid())


def free_port() -> int:
    """On 127.0.0.1. Processes of one test run look at different places."""
    while True:
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                server.bind(("127.0.0.1", port := _ports.choice(BELOW_THE_KERNELS_OWN)))
            except OSError:
                continue
            return port
