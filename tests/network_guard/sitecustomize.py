"""Run by Python at its start, from PYTHONPATH: refuses every look-up and connection of Python code, and writes it down."""

import os
import socket
import sys

_FORBIDDEN = {"socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    if event not in _FORBIDDEN:
        return
    if isinstance(arguments[0], socket.socket) and arguments[0].family == socket.AF_UNIX:
        return
    with open(os.environ["NETWORK_GUARD_LOG"], "a") as log:
        log.write(f"{event} {arguments[-1] if event.endswith(('connect', 'sendto', 'sendmsg')) else arguments}\n")
    raise ConnectionRefusedError(f"the network guard refuses {event}")


sys.addaudithook(_refuse)
