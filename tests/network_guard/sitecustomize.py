"""Refuses look-ups and connections of Python code. Imported by conftest for the whole suite, which may talk to itself.

With NETWORK_GUARD_LOG in the environment nothing at all is allowed, and what is refused is written into that file. Python
imports this file at its start if its folder is on PYTHONPATH.
"""

import os
import sys

LOOK_UPS = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}
CONNECTIONS = {"socket.connect", "socket.sendto", "socket.sendmsg"}


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    if event in LOOK_UPS:
        host = arguments[0]
    elif event in CONNECTIONS:
        address = arguments[1]
        if not isinstance(address, tuple):  # a name of this machine, or none: the socket is connected
            return
        host = address[0]
    else:
        return
    if log := os.environ.get("NETWORK_GUARD_LOG"):
        with open(log, "a") as file:
            file.write(f"{event} {host!r}\n")
    elif host is None or str(host).startswith(("127.", "::1", "localhost")):
        return
    raise ConnectionRefusedError(f"the network guard refuses {event} {host!r}")


sys.addaudithook(_refuse)
