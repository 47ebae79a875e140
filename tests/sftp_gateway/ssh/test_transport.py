"""Algorithms, limits before a login and the end of a connection: the parts of paramiko that the gateway leans on."""

from __future__ import annotations

import contextlib
import os
import queue
import random
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

import paramiko
import pytest
from paramiko.common import MSG_KEXINIT, MSG_SERVICE_ACCEPT, MSG_UNIMPLEMENTED, cMSG_SERVICE_REQUEST
from paramiko.message import Message

from sftp_gateway import SFTPGateway
from sftp_gateway.ssh.transport import (
    MAX_BANNER_BYTES,
    MAX_STRANGERS_PACKET_BYTES,
    BoundedPacketizer,
    BoundedTransport,
)
from tests.sftp_gateway.conftest import PASSWORD, Connect, LogLines, StartGateway
from tests.sftp_gateway.connections import wait_for_no_connection
from tests.waiting import DEADLINE_SECONDS

WEAK = ("cbc", "3des", "md5", "sha1", "-96", "arcfour", "group1-", "umac", "nistp", "group14")


def test_the_private_parts_of_paramiko_that_are_overridden_exist() -> None:
    """A paramiko that moves one of them must be noticed here, not by an attacker."""
    for base, name in (
        (paramiko.Transport, "_send_message"),
        (paramiko.Transport, "_send_user_message"),
        (paramiko.Transport, "_send_kex_init"),
        (paramiko.Transport, "_negotiate_keys"),
        (paramiko.Transport, "_parse_newkeys"),
        (paramiko.Transport, "_parse_ext_info"),
        (paramiko.Transport, "_auth_trigger"),
        (paramiko.Transport, "_log"),
        (paramiko.Transport, "_channel_handler_table"),
        (paramiko.Transport, "_queue_incoming_channel"),
        (paramiko.Transport, "_kex_info"),
        (paramiko.Channel, "_feed"),
        (paramiko.Channel, "_handle_request"),
        (paramiko.packet.Packetizer, "_read_timeout"),
        (paramiko.packet.Packetizer, "start_handshake"),
        (paramiko.packet.Packetizer, "complete_handshake"),
        (paramiko.auth_handler.AuthHandler, "_generate_key_from_request"),
        (paramiko.auth_handler.AuthHandler, "_parse_service_request"),
        (paramiko.auth_handler.AuthHandler, "_parse_userauth_info_response"),
    ):
        assert hasattr(base, name), f"{base.__name__}.{name}"


def lists_offered(gateway: SFTPGateway, version: bytes) -> list[list[str]]:
    """Return the algorithm lists of the server's KEXINIT: kex, host keys, ciphers in and out, MACs in and out."""
    with socket.create_connection(gateway.address, timeout=20) as sock, sock.makefile("rb") as stream:
        sock.sendall(version + b"\r\n")
        assert stream.readline() == b"SSH-2.0-SFTPGateway\r\n"
        if version.startswith((b"SSH-2.0-OpenSSH", b"SSH-2.0-paramiko")):
            sock.sendall(kex_init(("aes128-ctr", "aes256-gcm@openssh.com")))
        length, padding = struct.unpack(">IB", stream.read(5))
        payload = stream.read(length - 1)[: length - 1 - padding]
    message = Message(payload[17:])
    return [message.get_list() for _ in range(6)]


def kex_init(ciphers: tuple[str, ...]) -> bytes:
    message = Message()
    message.add_byte(b"\x14")
    message.add_bytes(os.urandom(16))
    lists: list[tuple[str, ...]] = [("curve25519-sha256@libssh.org",), ("ssh-ed25519",), ciphers, ciphers]
    for names in [*lists, *[("hmac-sha2-256-etm@openssh.com",)] * 2, ("none",), ("none",), (), ()]:
        message.add_list(names)
    message.add_boolean(False)
    message.add_int(0)
    payload = message.asbytes()
    padding = 8 - (len(payload) + 5) % 8 + 8
    return struct.pack(">IB", len(payload) + padding + 1, padding) + payload + bytes(padding)


def test_only_modern_algorithms_are_offered(start_gateway: StartGateway) -> None:
    offered = lists_offered(start_gateway(), b"SSH-2.0-test")
    for names in offered:
        assert names
        assert not [name for name in names for weak in WEAK if weak in name]
    kex, keys, ciphers, *_ = offered
    assert kex[0] == "mlkem768x25519-sha256" or "mlkem768x25519-sha256" not in paramiko.Transport._kex_info  # type: ignore[attr-defined]
    assert "kex-strict-s-v00@openssh.com" in kex
    assert keys == ["ssh-ed25519"]
    assert ciphers[:2] == ["aes256-gcm@openssh.com", "aes128-gcm@openssh.com"]


def test_older_devices_can_be_let_in(start_gateway: StartGateway) -> None:
    kex, keys, _, _, macs, _ = lists_offered(start_gateway(compatible_algorithms=True), b"SSH-2.0-test")
    assert "ecdh-sha2-nistp256" in kex
    assert set(keys) == {"ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256"}
    assert "hmac-sha2-256" in macs
    assert not [name for name in (*kex, *macs) if "sha1" in name or "md5" in name]


@pytest.mark.parametrize("version", [b"SSH-2.0-OpenSSH_9.2p1", b"SSH-2.0-paramiko_3.5.0"])
def test_clients_with_aes_gcm_get_it_although_they_prefer_others(start_gateway: StartGateway, version: bytes) -> None:
    ciphers = lists_offered(start_gateway(), version)[2]
    assert ciphers == ["aes256-gcm@openssh.com", "aes128-gcm@openssh.com"]


def test_a_client_without_aes_gcm_gets_aes_ctr(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    with paramiko.Transport(
        gateway.address, disabled_algorithms={"ciphers": list(BoundedTransport._preferred_ciphers[:2])}
    ) as client:
        client.local_version = "SSH-2.0-OpenSSH_9.2p1"
        client.start_client(timeout=20)
        client.auth_password("ann", PASSWORD)
        assert client.local_cipher == "aes128-ctr"
    client.join(30)


def test_a_service_that_is_asked_for_after_the_login_changes_nothing(
    start_gateway: StartGateway, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Twisted's clients ask again for their login whenever keys were exchanged; whoever is refused goes on."""
    answers: queue.Queue[int] = queue.Queue()
    transport = connect(start_gateway(), "ann", PASSWORD)
    for kind in (MSG_SERVICE_ACCEPT, MSG_UNIMPLEMENTED):
        monkeypatch.setitem(transport._handler_table, kind, lambda _, kind=kind: answers.put(kind))  # type: ignore[attr-defined]
    for service in ("ssh-userauth", "ssh-connection"):
        request = paramiko.Message()
        request.add_byte(cMSG_SERVICE_REQUEST)
        request.add_string(service)
        transport._send_message(request)  # type: ignore[attr-defined]
        assert answers.get(timeout=DEADLINE_SECONDS) == MSG_UNIMPLEMENTED
    transport.global_request("ping", wait=True)
    assert transport.is_active()


ATTACKS: dict[str, Callable[[socket.socket], Any]] = {
    "nothing": lambda sock: None,
    "garbage": lambda sock: sock.sendall(os.urandom(3000)),
    "http": lambda sock: sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    "tls": lambda sock: sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(509)),
    "banner only": lambda sock: sock.sendall(b"SSH-2.0-x\r\n"),
    "old version": lambda sock: sock.sendall(b"SSH-1.5-x\r\n"),
    "endless banner": lambda sock: sock.sendall(b"x" * (MAX_BANNER_BYTES + 1)),
    "huge packet": lambda sock: sock.sendall(b"SSH-2.0-x\r\n" + struct.pack(">IB", 2**31, 4) + bytes(100)),
    "tiny packet": lambda sock: sock.sendall(b"SSH-2.0-x\r\n" + bytes(100)),
    "broken kexinit": lambda sock: sock.sendall(b"SSH-2.0-x\r\n" + struct.pack(">IBB", 12, 4, 20) + bytes(100)),
    "unknown message": lambda sock: sock.sendall(b"SSH-2.0-x\r\n" + struct.pack(">IBB", 12, 4, 250) + bytes(10)),
    "half a kexinit": lambda sock: sock.sendall(b"SSH-2.0-OpenSSH_9.2\r\n" + kex_init(("aes128-ctr",))[:50]),
    "no common cipher": lambda sock: sock.sendall(b"SSH-2.0-OpenSSH_9.2\r\n" + kex_init(("3des-cbc",))),
}
NOTHING_IN_COMMON = {"broken kexinit", "no common cipher"}  # as of a client that needs other algorithms


def test_a_banner_without_end_is_cut_short(start_gateway: StartGateway) -> None:
    """At once, not when the time for a banner is over; it would all be kept until then."""
    with socket.create_connection(start_gateway().address, timeout=10) as sock, contextlib.suppress(ConnectionError):
        sock.sendall(b"x" * (MAX_BANNER_BYTES + 1))
        while sock.recv(1000):
            pass


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_broken_handshake_is_one_line_and_leaves_nothing(
    start_gateway: StartGateway, connect: Connect, log_lines: LogLines, caplog: pytest.LogCaptureFixture, attack: str
) -> None:
    gateway = start_gateway()
    with socket.create_connection(gateway.address, timeout=20) as sock, contextlib.suppress(ConnectionError):
        ATTACKS[attack](sock)
        with contextlib.suppress(OSError):  # where it has hung up already
            sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass
    wait_for_no_connection(gateway)
    assert len(log_lines("no_login", 1)) == 1
    level = "INFO" if attack in NOTHING_IN_COMMON else "DEBUG"
    assert [record.levelname for record in caplog.records if record.name.startswith("sftp_gateway")] == [level]
    assert connect(gateway, "ann", PASSWORD).is_authenticated()


@pytest.mark.parametrize("scan", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00", b"SSH-2.0-x\r\n" + b"\xff" * 99])
def test_a_port_scan_is_one_line_of_the_debug_log(
    start_gateway: StartGateway, log_lines: LogLines, caplog: pytest.LogCaptureFixture, scan: bytes
) -> None:
    gateway = start_gateway()
    caplog.set_level("DEBUG", "sftp_gateway.paramiko")
    with socket.create_connection(gateway.address, timeout=20) as sock:
        sock.sendall(scan)
    log_lines("no_login", 1)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("sftp_gateway")]
    assert not [line for line in lines if "Traceback" in line]
    if not scan.startswith(b"SSH-"):
        assert [line.split()[0] for line in lines] == ["no_login"]


def test_a_flood_of_broken_connections_leaves_nothing(start_gateway: StartGateway, connect: Connect) -> None:
    gateway = start_gateway()
    attacks = list(ATTACKS.values())
    for number in range(200):
        sock = socket.create_connection(gateway.address, timeout=20)
        attacks[number % len(attacks)](sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", number % 2, 0))  # every other one resets
        sock.close()
    wait_for_no_connection(gateway)
    assert connect(gateway, "ann", PASSWORD).is_authenticated()


@pytest.fixture
def raw(start_gateway: StartGateway, connect: Connect) -> paramiko.Transport:
    """A connection with keys exchanged and the authentication service granted, for hand-made messages."""
    transport = connect(start_gateway())
    with pytest.raises(paramiko.BadAuthenticationType):
        transport.auth_none("ann")
    return transport


def ended(transport: paramiko.Transport) -> bool:
    transport.join(30)
    return not transport.is_alive()


def test_an_absurd_number_of_prompt_answers_ends_the_connection(raw: paramiko.Transport) -> None:
    message = Message()
    message.add_byte(b"\x3d")  # SSH_MSG_USERAUTH_INFO_RESPONSE
    message.add_int(2**32 - 1)
    raw._send_message(message)  # type: ignore[attr-defined]
    assert ended(raw)


def test_an_absurd_number_of_extensions_is_ignored(raw: paramiko.Transport) -> None:
    message = Message()
    message.add_byte(b"\x07")  # SSH_MSG_EXT_INFO
    message.add_int(2**32 - 1)
    raw._send_message(message)  # type: ignore[attr-defined]
    raw.auth_password("ann", PASSWORD)
    assert raw.is_authenticated()


def test_what_a_stranger_sends_is_short(raw: paramiko.Transport) -> None:
    message = Message()
    message.add_byte(b"\x32")  # SSH_MSG_USERAUTH_REQUEST
    for text in ("ann", "ssh-connection", "password", "\0" * MAX_STRANGERS_PACKET_BYTES):
        message.add_string(text)
    raw._send_message(message)  # type: ignore[attr-defined]
    assert ended(raw)


@pytest.mark.parametrize("length", [MAX_STRANGERS_PACKET_BYTES + 12, 2**31 + 4])  # whole blocks, with their length
def test_what_comes_before_there_are_keys_is_short(start_gateway: StartGateway, length: int) -> None:
    """Nobody makes the gateway keep room for gigabytes by four bytes."""
    with socket.create_connection(start_gateway().address, timeout=20) as sock, sock.makefile("rb") as stream:
        sock.sendall(b"SSH-2.0-test\r\n" + struct.pack(">IB", length, 4) + bytes(100))
        assert stream.readline() == b"SSH-2.0-SFTPGateway\r\n"
        with contextlib.suppress(ConnectionResetError):
            while stream.read(1):
                pass


def test_who_goes_on_asking_instead_of_giving_new_keys_is_let_go(
    raw: paramiko.Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is answered meanwhile has to be kept until there are keys to send it with."""
    raw.auth_password("ann", PASSWORD)
    asked = threading.Event()
    monkeypatch.setitem(raw._handler_table, MSG_KEXINIT, lambda _: asked.set())  # type: ignore[attr-defined]
    monkeypatch.setattr("sftp_gateway.ssh.transport._MAX_HELD_BACK", 50)
    monkeypatch.setattr(BoundedPacketizer, "REKEY_PACKETS", 1)
    question = Message()
    question.add_byte(b"\x50")  # SSH_MSG_GLOBAL_REQUEST
    question.add_string("anything")
    question.add_boolean(True)
    raw._send_message(question)  # type: ignore[attr-defined]
    assert asked.wait(DEADLINE_SECONDS)
    with contextlib.suppress(OSError, EOFError):
        for _ in range(100):
            raw._send_message(question)  # type: ignore[attr-defined]
    assert ended(raw)


def test_who_has_signed_in_may_send_longer_packets(raw: paramiko.Transport) -> None:
    raw.auth_password("ann", PASSWORD)
    raw.packetizer.send_message(Message(b"\x02" + b"\0" * 100_000))  # SSH_MSG_IGNORE
    with paramiko.SFTPClient.from_transport(raw) as client:  # type: ignore[union-attr]
        assert client.listdir("/") == []


def test_the_first_reason_for_a_goodbye_is_what_the_client_is_told() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        transport = BoundedTransport(ours, host_keys=[], on_login=lambda: None, on_end=lambda: None)
        transport.disconnect(12, "too many sessions")
        transport.disconnect(11, "shutting down")
        assert isinstance(transport.packetizer, BoundedPacketizer)
        assert transport.packetizer.farewell is not None
        assert b"too many sessions" in transport.packetizer.farewell.asbytes()


def test_a_channel_before_the_login_is_refused(raw: paramiko.Transport) -> None:
    with pytest.raises((paramiko.ChannelException, paramiko.SSHException)):
        raw.open_session(timeout=30)


def test_random_messages_before_and_after_a_login_leave_nothing(
    start_gateway: StartGateway, connect: Connect, log_lines: LogLines
) -> None:
    gateway = start_gateway()
    source = random.Random(4)
    for number in range(60):
        transport = connect(gateway, "ann", PASSWORD) if number % 2 else connect(gateway)
        with contextlib.suppress(EOFError, OSError, paramiko.SSHException):
            for _ in range(10):
                message = Message()
                message.add_bytes(bytes([source.choice((2, 4, 5, 6, 50, 50, 61, 80, 81, 90, 93, 94, 97, 98, 98, 200))]))
                if source.random() < 0.5:
                    message.add_string(source.choice(("ssh-userauth", "ann", "session", "tcpip-forward", "\0")))
                    message.add_string("ssh-connection")
                    message.add_string(
                        source.choice(("password", "publickey", "keyboard-interactive", "none", "hostbased"))
                    )
                message.add_bytes(source.randbytes(source.choice((0, 1, 4, 8, 40, 3000))))
                transport._send_message(message)  # type: ignore[attr-defined]
        transport.close()
    wait_for_no_connection(gateway)
    assert not log_lines("bug")
    assert connect(gateway, "ann", PASSWORD).is_authenticated()
