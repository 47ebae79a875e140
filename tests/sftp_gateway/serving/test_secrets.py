"""No secret of a login is found anywhere afterwards: logs at debug, metrics, command lines, files of the gateway."""

from __future__ import annotations

import base64
import contextlib
import json
import signal
import socket
import urllib.request
from pathlib import Path
from urllib.parse import quote

import paramiko
import pytest

from fs_dropbox.emulator import Emulator
from tests.sftp_gateway.conftest import PASSWORD, PASSWORD_HASH
from tests.sftp_gateway.connections import sftp
from tests.sftp_gateway.program import begin

WRONG = ("wr0ng-password-one", "wr0ng-password-two")


def sign_in(port: int, name: str, secret: str | paramiko.PKey, *, prompt: bool = False) -> paramiko.Transport:
    transport = paramiko.Transport(("127.0.0.1", port))
    transport.start_client(timeout=20)
    if isinstance(secret, paramiko.PKey):
        transport.auth_publickey(name, secret)
    elif prompt:
        transport.auth_interactive(name, lambda *_: [secret])
    else:
        transport.auth_password(name, secret, fallback=False)
    return transport


def use(transport: paramiko.Transport) -> None:
    """Do what leaves traces: a listing, an upload, an error, an upload that is cut off."""
    client = sftp(transport)
    client.listdir("/")
    with client.open("/whole", "wb") as file:
        file.write(b"x" * 1000)
    with contextlib.suppress(OSError):
        client.stat("/nothing")
    file = client.open("/half", "wb")
    file.set_pipelined(True)
    for _ in range(80):
        file.write(b"x" * 32768)
    client.stat("/half")
    transport.sock.close()


def family(pid: int) -> list[int]:
    """Return a process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def forms(secret: str) -> set[bytes]:
    """What a secret may look like in a file."""
    raw = secret.encode()
    return {raw, quote(secret, safe="").encode(), base64.b64encode(raw).rstrip(b"="), json.dumps(secret)[1:-1].encode()}


def configure(
    folder: Path, emulator: Emulator, key: paramiko.PKey, *, metrics: int, processes: int, log_format: str
) -> None:
    (folder / "url").write_text(emulator.fs_url)
    (folder / "gateway.toml").write_text(
        f'''
        listen = "127.0.0.1:0"
        state_folder = "state"
        processes = {processes}
        log_level = "debug"
        log_format = "{log_format}"
        metrics = "127.0.0.1:{metrics}"
        metrics_users = true
        url_parameters = "api_host={emulator.host}&ca_certs={quote(str(emulator.ca_file), safe="")}"
        [[users]]
        name = "ann"
        password_hash = "{PASSWORD_HASH}"
        public_keys = ["{key.get_name()} {key.get_base64()}"]
        url = "{emulator.fs_url}"
        [[users]]
        name = "bob"
        password_hash = "{PASSWORD_HASH}"
        url_file = "url"
        '''
    )


def contents(folder: Path, note: str = "") -> dict[str, bytes]:
    """Return what is in the files below a folder, by their paths."""
    return {f"{path}{note}": path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("processes", "log_format"), [(1, "text"), (2, "json")])
def test_secrets_are_found_nowhere(tmp_path: Path, emulator: Emulator, processes: int, log_format: str) -> None:
    key = paramiko.Ed25519Key.generate() if hasattr(paramiko.Ed25519Key, "generate") else paramiko.ECDSAKey.generate()
    with socket.create_server(("127.0.0.1", 0)) as free:
        metrics = free.getsockname()[1]
    configure(tmp_path, emulator, key, metrics=metrics, processes=processes, log_format=log_format)
    app, token = f"{emulator.app_key}~{emulator.app_secret}", emulator.refresh_token
    files: dict[str, bytes] = {}
    process, port = begin(tmp_path / "gateway.toml")
    with process:
        try:
            transports = [
                sign_in(port, "ann", PASSWORD),
                sign_in(port, "ann", PASSWORD, prompt=True),
                sign_in(port, "ann", key),
                sign_in(port, "bob", PASSWORD),
                sign_in(port, app, token),
                sign_in(port, app, token, prompt=True),
            ]
            for transport in transports:
                use(transport)
            for name, secret in (("ann", WRONG[0]), ("nobody", WRONG[1]), (app, WRONG[0]), (app + "x", token)):
                with pytest.raises(paramiko.SSHException):
                    sign_in(port, name, secret)
            for transport in transports:
                transport.close()
            with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=20) as answer:
                files["/metrics"] = answer.read()
            for pid in family(process.pid):
                files[f"command line of {pid}"] = Path(f"/proc/{pid}/cmdline").read_bytes()
            assert (tmp_path / "state").stat().st_mode & 0o077 == 0
            files |= contents(tmp_path / "state")
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
    files["log"] = (tmp_path / "log").read_bytes()
    files |= contents(tmp_path / "state", " (after the end)")
    assert any(name.endswith(".spool") for name in files), "no upload was cut off"
    assert files["log"].count(b"login_failed") >= 4
    assert b"ann" in files["log"]
    secrets = {PASSWORD, *WRONG, token, emulator.app_secret, emulator.fs_url, emulator.fs_url.partition("@")[0]}
    for secret in secrets:
        assert len(secret) > 8, secret
        for form in forms(secret):
            found = [name for name, content in files.items() if form in content]
            assert not found, f"{form.decode()[:4]}… is in {found}"
