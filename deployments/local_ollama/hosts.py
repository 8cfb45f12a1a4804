"""Which names a request may call this server by: a guard against web pages that rebind theirs."""

import ipaddress
import socket
from functools import lru_cache

_LOCAL_ENDINGS = (".localhost", ".local", ".internal")


def is_local(host_header: str) -> bool:
    """Whether the Host header names this machine, as Ollama decides it when bound to loopback."""
    host = _without_port(host_header)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.lower()
        return name in ("", "localhost", _own_name()) or name.endswith(_LOCAL_ENDINGS)
    return address.is_loopback or address.is_private or address.is_unspecified


def _without_port(header: str) -> str:
    if header.startswith("["):
        return header[1:].partition("]")[0]
    host, colon, _port = header.rpartition(":")
    return host if colon and ":" not in host else header


@lru_cache(maxsize=1)
def _own_name() -> str:
    return socket.gethostname().lower()
