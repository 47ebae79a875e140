"""A local Dropbox and the gateway in front of it with one command; the only module that reaches the emulator."""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from sftp_gateway.config import ConfigError, GatewayConfig, UserConfig, in_home, parse_address
from sftp_gateway.passwords import hash_password
from sftp_gateway.server import GatewayError, SFTPGateway

if TYPE_CHECKING:
    from fs_dropbox.emulator import Emulator

USER = PASSWORD = "demo"

WELCOME = """\
Welcome to your Dropbox, or rather to a small one that lives on this machine.

Upload, rename, edit, delete: it behaves as the real service does, and what you
leave here is here again next time. Nothing ever leaves this computer.
"""


def default_directory() -> Path:
    """Where the demo's files live unless another directory is named."""
    return in_home("XDG_DATA_HOME", ".local/share", "--folder") / "sftp-gateway" / "demo"


def run_demo(directory: Path, listen: str, *, tell: Callable[[str], None], wait: Callable[[], None]) -> None:
    """Serve until `wait` returns; raises `GatewayError` or `ConfigError` with one line when that cannot be."""
    try:
        parse_address(listen)
    except ValueError as error:
        raise ConfigError(f"--listen: {error}") from None
    emulator = _start_emulator(directory)
    _go_past_proxies("127.0.0.1")
    try:
        gateway = SFTPGateway(_config(emulator, directory, listen))
        gateway.start()
        try:
            tell(_greeting(emulator, directory, gateway))
            wait()
        finally:
            gateway.stop()
    finally:
        emulator.stop()


def _start_emulator(directory: Path) -> Emulator:
    try:
        from fs_dropbox.emulator import Emulator
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(("fs_dropbox.", "sftp_gateway")):
            raise
        raise GatewayError(f"{error.name} is not installed; run: pip install 'fs-dropbox[gateway]'") from None
    state = directory / "dropbox"
    try:
        is_new = not state.exists() or not any(state.iterdir())
        emulator = Emulator(state).start()
    except OSError as error:
        reason = error.strerror or error
        raise GatewayError(
            f"{directory}: the demo's files cannot be kept here: {reason}; name another --folder"
        ) from None
    if is_new:
        for path, content in _seed():
            emulator.control.seed(path, content)
    return emulator


def _go_past_proxies(host: str) -> None:
    """Let this process reach a local host although its environment sends everything through a proxy."""
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join(part for part in (os.environ.get(name), host) if part)


def _config(emulator: Emulator, directory: Path, listen: str) -> GatewayConfig:
    return GatewayConfig(
        listen=listen,
        state_folder=str(directory / "gateway"),
        users=(UserConfig(name=USER, password_hash=hash_password(PASSWORD), url=emulator.fs_url),),
        url_parameters=f"api_host={quote(emulator.host)}&ca_certs={quote(str(emulator.ca_file), safe='')}",
        drain_seconds=2.0,
    )


def _greeting(emulator: Emulator, directory: Path, gateway: SFTPGateway) -> str:
    host, port = gateway.address
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    target = f"{USER}@[{host}]" if ":" in host else f"{USER}@{host}"
    return f"""\
SFTP gateway over a local Dropbox, ready on port {port}; host key {", ".join(gateway.fingerprints)}

  sftp -P {port} {target}        password: {PASSWORD}

As with a real account, a Dropbox app's key and secret with a refresh token sign in too:

  user:     {emulator.app_key}~{emulator.app_secret}
  password: {emulator.refresh_token}

Files are kept in {directory}. Ctrl-C ends the demo."""


def _seed() -> Iterator[tuple[str, bytes | None]]:
    """What a new demo holds: text, pictures, spaces, many scripts, an empty file and an empty directory."""
    yield "/README.txt", WELCOME.encode()
    yield "/Documents", None
    yield "/Documents/Annual report 2026.csv", _table()
    yield "/Documents/Grüße aus Köln.txt", "Äpfel, Öl, Straße: names keep their letters.\n".encode()
    yield "/Documents/empty.txt", b""
    yield "/Photos", None
    yield "/Photos/Sunrise over the lake.png", _picture(480, 320, (255, 170, 60))
    yield "/Photos/Summer 2026", None
    yield "/Photos/Summer 2026/Blue hour.png", _picture(640, 426, (40, 80, 190))
    yield "/Photos/Summer 2026/京都の庭.png", _picture(320, 480, (60, 150, 70))
    yield "/Empty folder", None


def _table() -> bytes:
    rows = (f"2026-{month:02d},{1000 + 137 * month % 400},{700 + 91 * month % 300}" for month in range(1, 13))
    return ("month,income,expenses\n" + "\n".join(rows) + "\n").encode()


def _picture(width: int, height: int, colour: tuple[int, int, int]) -> bytes:
    """Return a PNG that any viewer shows: the colour fading into dark, with some grain."""
    rows = bytearray()
    grain = hashlib.shake_256(bytes(colour)).digest(width)
    for y in range(height):
        rows.append(0)
        for x in range(width):
            light = 255 - 200 * y // height + grain[(x * 7 + y * 13) % width] % 16
            rows += bytes(min(255, channel * light // 255) for channel in colour)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (
            (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(bytes(rows))),
            (b"IEND", b""),
        )
    )
