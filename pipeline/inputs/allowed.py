"""Where the files that a manifest names may come from: not from everywhere, if the manifest is a stranger's.

A path or an address in a row is opened by a worker, which may see files and services that whoever wrote the row can't.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Any

from fsspec import AbstractFileSystem

from manifests.uri import scheme
from pipeline.config import InputLimits
from pipeline.filesystems import OBJECT_STORES, connect

if TYPE_CHECKING:
    import aiohttp

_LOCAL = frozenset({"file", "local"})
_WEB = frozenset({"http", "https"})
_STORES = OBJECT_STORES | {"az", "abfs", "abfss", "hf"}
"""Protocols whose servers are those of the options, not of the URI."""
_NAT64 = IPv6Network("64:ff9b::/96")
"""Stands for IPv4 addresses (RFC 6052)."""


class PlaceError(ValueError):
    """A place that the settings keep inputs from; ``hint`` names the setting."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def connect_input(
    uri: str, storage_options: Mapping[str, Mapping[str, Any]], limits: InputLimits
) -> tuple[AbstractFileSystem, str]:
    """`pipeline.filesystems.connect` within ``limits.local_files`` and ``limits.private_addresses``.

    Web servers are judged by the address that is connected to, whatever its name says and wherever it redirects to: a
    refused one raises `PlaceError` when the file is asked for. Raises it at once for other places, and what ``connect``
    raises.
    """
    protocol = scheme(uri) or "file"
    if protocol in _LOCAL and limits.local_files is False:
        raise PlaceError("local files are off", hint="put it into a store, or set limits.local_files: true")
    if limits.private_addresses is not False or protocol in _LOCAL | _STORES:
        return connect(uri, storage_options)
    if protocol not in _WEB:
        raise PlaceError(
            f"{protocol}:// may lead into a private network", hint="use a store, or set limits.private_addresses: true"
        )
    own = {**storage_options.get(protocol, {}), "get_client": _public_client}
    return connect(uri, {**storage_options, protocol: own})


async def _public_client(**options: Any) -> aiohttp.ClientSession:
    import aiohttp

    # One address after the other: a refusal among several that are tried at once would be passed over.
    connector = aiohttp.TCPConnector(socket_factory=_public_socket, happy_eyeballs_delay=None)
    return aiohttp.ClientSession(connector=connector, **options)


def _public_socket(info: tuple[Any, ...]) -> socket.socket:
    """A socket for an entry of getaddrinfo's."""
    family, kind, protocol, _, address = info
    if not _is_public(address[0]):
        raise PlaceError(
            f"{address[0]} is an address of a private network",
            hint="put it where everyone reaches it, or set limits.private_addresses: true",
        )
    return socket.socket(family, kind, protocol)


def _is_public(host: str) -> bool:
    address: IPv4Address | IPv6Address = ip_address(host.partition("%")[0])
    if isinstance(address, IPv6Address):
        translated = IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None
        address = address.ipv4_mapped or address.sixtofour or translated or address
    return address.is_global and not address.is_multicast
