"""How a gateway starts, or says in one line why it cannot."""

from __future__ import annotations

import os
import socket
import sqlite3
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from sftp_gateway import GatewayConfig, GatewayError, SFTPGateway, UserConfig
from sftp_gateway.network.listening import listen
from sftp_gateway.serving.gatekeeper import Gatekeeper
from tests.sftp_gateway.conftest import PASSWORD, PASSWORD_HASH, Connect, LogLines, StartGateway
from tests.sftp_gateway.connections import sftp


def test_a_port_in_use_is_one_clear_line(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = start_gateway()
    host, port = gateway.address
    second = SFTPGateway(GatewayConfig(listen=f"{host}:{port}", state_folder=str(tmp_path)))
    with pytest.raises(GatewayError) as caught:
        second.start()
    assert second.stop()
    assert str(caught.value).startswith(f"cannot listen on {host}:{port}: the port is in use; ")


def test_an_address_of_another_machine_is_one_clear_line(start_gateway: StartGateway) -> None:
    with pytest.raises(GatewayError, match=r"cannot listen on 192\.0\.2\.1:2222: this machine has no such address"):
        start_gateway(listen="192.0.2.1:2222")


def test_a_privileged_port_is_one_clear_line(start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("socket.socket.bind", refuse)
    with pytest.raises(GatewayError, match=r"cannot listen on 127\.0\.0\.1:22: ports below 1024 need privileges"):
        start_gateway(listen="127.0.0.1:22")


def test_a_state_folder_that_cannot_be_made_is_one_clear_line(start_gateway: StartGateway, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(GatewayError, match="cannot be made"):
        start_gateway(state_folder=str(tmp_path / "file" / "state"))


def test_a_state_folder_is_one_gateways_at_a_time(
    start_gateway: StartGateway, tmp_path: Path, connect: Connect
) -> None:
    first = start_gateway()
    with pytest.raises(GatewayError) as caught:
        start_gateway()
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / 'state'}: another gateway has this state folder (process {os.getpid()} on ")
    assert said.endswith(
        "to listen on 127.0.0.1:0); stop it, or choose another folder with --state-folder: two gateways share none"
    )
    assert connect(first, "ann", PASSWORD).is_authenticated()
    assert first.stop()
    second = start_gateway()
    assert connect(second, "ann", PASSWORD).is_authenticated()


def test_a_gateway_that_cannot_start_leaves_the_state_folder_to_others(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(GatewayError, match="the port is in use"):
        start_gateway(listen=f"127.0.0.1:{other.getsockname()[1]}")
    start_gateway()


def test_a_gateway_that_cannot_count_says_so_and_leaves_its_port_to_others(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with monkeypatch.context() as patched:
        patched.setattr(Gatekeeper, "__init__", Mock(side_effect=sqlite3.OperationalError("disk I/O error")))
        with pytest.raises(GatewayError, match="disk I/O error"):
            start_gateway(listen=address)
    start_gateway(listen=address)


def test_the_host_key_stays_the_same(start_gateway: StartGateway, connect: Connect, tmp_path: Path) -> None:
    first = start_gateway()
    first.stop()
    second = start_gateway()
    assert first.fingerprints == second.fingerprints
    key = connect(second).get_remote_server_key()
    assert second.fingerprints == [f"ssh-ed25519 {key.fingerprint}"]
    assert (tmp_path / "state" / "account_secret").stat().st_mode & 0o777 == 0o600


def test_ipv6(start_gateway: StartGateway, connect: Connect) -> None:
    assert connect(start_gateway(listen="[::1]:0"), "ann", PASSWORD).is_authenticated()


def test_all_addresses_of_ipv6_are_those_of_ipv4_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a system is set to keep them apart, as some are (`net.ipv6.bindv6only`)."""

    class KeptApart:
        def __getattr__(self, name: str) -> Any:
            return getattr(socket, name)

        def socket(self, family: int, kind: int) -> socket.socket:
            made = socket.socket(family, kind)
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            return made

    monkeypatch.setattr("sftp_gateway.network.listening.socket", KeptApart())
    with listen("::", 0, "--listen") as listener:
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, listener.getsockname()[1]), timeout=20).close()


def test_ipv4_through_an_ipv6_socket_is_logged_as_what_it_is(start_gateway: StartGateway, log_lines: LogLines) -> None:
    _, port = start_gateway(listen="[::]:0").address
    socket.create_connection(("127.0.0.1", port)).close()
    assert log_lines("no_login", 1)[0]["from"] == "127.0.0.1"


def test_what_it_makes_in_its_state_folder_is_its_owners_alone(
    start_gateway: StartGateway, connect: Connect, tmp_path: Path
) -> None:
    """Whatever the umask, and also where the state folder was there and others may look into it."""
    state = tmp_path / "state"
    state.mkdir(mode=0o755)
    before = os.umask(0)
    try:
        gateway = start_gateway(
            state_folder=str(state),
            control_folder=str(tmp_path / "run" / "control"),
            users=(UserConfig(name="ann", password_hash=PASSWORD_HASH, url="mem://", write_back=True),),
        )
        with sftp(connect(gateway, "ann", PASSWORD)).open("/large", "wb") as file:
            file.write(bytes(2 * 2**20))
            made = [*state.rglob("*"), *(tmp_path / "run").rglob("*"), tmp_path / "run"]
            assert [path for path in made if path.suffix == ".spool"]
    finally:
        os.umask(before)
    assert not [path for path in made if path.exists() and path.stat().st_mode & 0o077]
