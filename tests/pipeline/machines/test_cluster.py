"""Joining a cluster that does not let one in."""

from __future__ import annotations

import pytest

from pipeline.errors import CannotRun
from pipeline.machines.cluster import connected
from tests.ray_machines import free_port


@pytest.mark.parametrize(
    "address", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}", "nowhere.invalid:{port}", "[::1]:99999"]
)
def test_an_address_where_nothing_listens_is_said_at_once(address: str) -> None:
    address = address.format(port=free_port())
    with pytest.raises(CannotRun, match="nothing answers there") as caught, connected(address):
        pass
    assert address in str(caught.value)
