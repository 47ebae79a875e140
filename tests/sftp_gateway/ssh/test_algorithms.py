"""What an auditor and other people's implementations say about the algorithms that are offered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import asyncssh
import paramiko
import pytest
from paramiko.message import Message

from sftp_gateway import ConfigError, SFTPGateway
from sftp_gateway.loading import load_config
from sftp_gateway.ssh.key_exchange import Group14, Group16
from tests.clients import client
from tests.sftp_gateway.conftest import PASSWORD, Connect, StartGateway

WITHOUT_POST_QUANTUM = "does not provide protection against post-quantum attacks"
REFUSED = (paramiko.SSHException, EOFError, OSError)
ENCRYPT_AND_MAC = "using encrypt-and-MAC mode"


def audit(gateway: SFTPGateway) -> dict[str, dict[str, list[str]]]:
    """Return what ssh-audit has against each algorithm, by its kind."""
    host, port = gateway.address
    done = subprocess.run(
        [client("ssh-audit"), "--json", "--skip-rate-test", "--port", str(port), host],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert report["banner"]["software"] == "SFTPGateway"
    assert not report["cves"]
    return {
        kind: {entry["algorithm"]: [*notes.get("fail", []), *notes.get("warn", [])] for entry in report[kind]
               if (notes := entry["notes"]) is not None}
        for kind in ("kex", "key", "enc", "mac")
    }  # fmt: skip


def complaints(report: dict[str, dict[str, list[str]]]) -> dict[str, list[str]]:
    return {name: texts for kind in report.values() for name, texts in kind.items() if texts}


@pytest.mark.interop
def test_the_strict_list_passes_an_audit_without_a_warning(start_gateway: StartGateway) -> None:
    report = audit(start_gateway(strict_algorithms=True))
    assert complaints(report) == {}
    assert set(report["kex"]) == {"mlkem768x25519-sha256", "kex-strict-s-v00@openssh.com"}
    assert set(report["enc"]) == {"aes256-gcm@openssh.com", "aes128-gcm@openssh.com"}


@pytest.mark.interop
def test_an_audit_finds_only_what_older_clients_need(start_gateway: StartGateway) -> None:
    report = audit(start_gateway())
    assert complaints(report) == {
        "curve25519-sha256": [WITHOUT_POST_QUANTUM],
        "curve25519-sha256@libssh.org": [WITHOUT_POST_QUANTUM],
        "diffie-hellman-group16-sha512": [WITHOUT_POST_QUANTUM],
        "hmac-sha2-256": [ENCRYPT_AND_MAC],
        "hmac-sha2-512": [ENCRYPT_AND_MAC],
    }
    assert next(iter(report["kex"])) == "mlkem768x25519-sha256"


@pytest.mark.filterwarnings("ignore:Diffie-Hellman over finite fields")  # of cryptography, in the client
@pytest.mark.parametrize(
    "kex",
    [
        "mlkem768x25519-sha256",
        "curve25519-sha256",
        "curve25519-sha256@libssh.org",
        "diffie-hellman-group16-sha512",
        "diffie-hellman-group14-sha256",
    ],
)
def test_another_implementation_agrees_on_the_keys(start_gateway: StartGateway, kex: str) -> None:
    """asyncssh derives its keys by code of its own: a wrong shared secret would end the handshake."""
    gateway = start_gateway(compatible_algorithms=kex == "diffie-hellman-group14-sha256")
    host, port = gateway.address

    async def look() -> Any:
        async with (
            asyncssh.connect(
                host, port, username="ann", password=PASSWORD, known_hosts=None, kex_algs=[kex], config=None,
                client_keys=None, agent_path=None, rekey_bytes=200_000,
            ) as connection,
            connection.start_sftp_client() as sftp,
        ):  # fmt: skip
            async with sftp.open("/file", "wb") as file:
                await file.write(b"x" * 500_000)  # twice over the limit for new keys
            return (await sftp.stat("/file")).size

    assert asyncio.run(look()) == 500_000


@pytest.mark.parametrize("algorithm", ["ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256"])
def test_clients_that_verify_one_kind_of_host_key_alone(start_gateway: StartGateway, algorithm: str) -> None:
    """JSch 0.1.55 verifies ECDSA and no Ed25519, others RSA alone."""
    gateway = start_gateway(compatible_algorithms=True)
    host, port = gateway.address

    async def look() -> str:
        async with asyncssh.connect(
            host, port, username="ann", password=PASSWORD, known_hosts=None, config=None,
            client_keys=None, agent_path=None, server_host_key_algs=[algorithm],
        ) as connection:  # fmt: skip
            key = connection.get_server_host_key()
            assert key is not None
            return key.get_fingerprint()

    shown = {text.split()[1] for text in gateway.fingerprints}
    assert len(shown) == 3
    assert asyncio.run(look()) in shown


@pytest.mark.parametrize("kind", [Group14, Group16])
def test_older_exchanges_are_as_cheap_as_is_safe(kind: type[Group14]) -> None:
    """Clients can ask for them without computing anything: see CVE-2002-20001."""
    exchanges = [object.__new__(kind) for _ in range(20)]
    for exchange in exchanges:
        exchange._generate_x()
    assert {exchange.x.bit_length() for exchange in exchanges} == {512}
    assert len({exchange.x for exchange in exchanges}) == 20


@contextlib.contextmanager
def half_open(gateway: SFTPGateway, **options: Any) -> Iterator[paramiko.Transport]:
    """A client that may fail before it has keys."""
    transport = paramiko.Transport(gateway.address, **options)
    try:
        yield transport
    finally:
        transport.packetizer.complete_handshake()  # ends its timer
        transport.close()
        transport.join(30)


def test_clients_without_post_quantum_are_let_in_unless_it_is_strict(start_gateway: StartGateway) -> None:
    classical = {"disabled_algorithms": {"kex": ["mlkem768x25519-sha256"]}}
    gateway = start_gateway()
    with half_open(gateway, **classical) as transport:
        transport.start_client(timeout=20)
        assert transport.is_active()
    gateway.stop()
    with half_open(start_gateway(strict_algorithms=True), **classical) as transport, pytest.raises(REFUSED):
        transport.start_client(timeout=20)


def test_strict_and_compatible_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="exclude each other"):
        load_config(environment={}, flags={"strict_algorithms": True, "compatible_algorithms": True})


@pytest.mark.parametrize("broken", [b"", b"x" * 1216, b"\0" * 1216, b"x" * 1215, b"x" * 70_000])
def test_a_broken_key_exchange_ends_the_connection_alone(
    start_gateway: StartGateway, connect: Connect, broken: bytes
) -> None:
    gateway = start_gateway()
    with half_open(gateway) as transport:
        original = transport._send_message  # type: ignore[attr-defined]

        def send(message: Message) -> None:
            if message.asbytes()[0] == 30:  # what starts the exchange
                message = Message()
                message.add_byte(b"\x1e")
                message.add_string(broken)
            original(message)

        transport._send_message = send  # type: ignore[attr-defined]
        with pytest.raises(REFUSED):
            transport.start_client(timeout=20)
    assert connect(gateway, "ann", PASSWORD).is_authenticated()
