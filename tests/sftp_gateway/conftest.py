"""A running gateway, its log lines, and an emulated Dropbox behind it, for tests."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import fs
import paramiko
import pytest
from fs.base import FS

from fs_dropbox.emulator import Emulator
from sftp_gateway import GatewayConfig, SFTPGateway, UserConfig
from sftp_gateway.files.store import Store
from sftp_gateway.files.tree import TreeLimits
from tests.passwords import PASSWORD as PASSWORD
from tests.passwords import PASSWORD_HASH as PASSWORD_HASH
from tests.sftp_gateway.atomic_fs import AtomicFS
from tests.sftp_gateway.raw_client import RawClient
from tests.sftp_gateway.without_doors import Serving
from tests.sftp_gateway.write_back.remote_fs import RemoteFS, WriteBack
from tests.waiting import eventually

StartGateway = Callable[..., SFTPGateway]
Connect = Callable[..., paramiko.Transport]
ServeDropbox = Callable[..., Serving]
ServeWriteBack = Callable[..., WriteBack]


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator() as running:
        yield running
        running.control.clear_faults()


@pytest.fixture
def filesystem() -> FS:
    """What `serving` serves; modules whose tests are about another one have a fixture of this name."""
    return AtomicFS()


@pytest.fixture
def store(filesystem: FS, tmp_path: Path) -> Iterator[Store]:
    """A store of the filesystem, which keeps nothing at the end."""
    store = Store(filesystem, spool_directory=tmp_path / "spool", limits=TreeLimits())
    yield store
    store.close()
    assert store.quota.used == 0


@pytest.fixture
def serving(filesystem: FS, tmp_path: Path) -> Iterator[Serving]:
    """A tree over a filesystem, and sessions without logins; in the end no spool file is left that has no note."""
    serving = Serving(filesystem, tmp_path / "spool")
    yield serving
    serving.close()
    left = list((tmp_path / "spool").glob("*"))
    assert all(path.suffix == ".json" or path.with_suffix(".json").exists() for path in left), left


@pytest.fixture
def client(serving: Serving) -> RawClient:
    return serving.raw()


@pytest.fixture
def serve_dropbox(emulator: Emulator, tmp_path: Path) -> Iterator[ServeDropbox]:
    """Serve the emulated Dropbox to sessions without SSH; `limits` are those of the tree."""
    with ExitStack() as stack:

        def serve(limits: TreeLimits | None = None) -> Serving:
            filesystem = stack.enter_context(fs.open_fs(emulator.fs_url))
            serving = Serving(filesystem, tmp_path / "spool", limits=limits)
            stack.callback(serving.close)
            return serving

        yield serve


@pytest.fixture
def serve_write_back(tmp_path: Path) -> Iterator[ServeWriteBack]:
    """Serve a filesystem with write-back to sessions without SSH; `limits` are those of write-back."""
    with ExitStack() as stack:

        def serve(filesystem: FS, **limits: Any) -> WriteBack:
            serving = WriteBack(filesystem, tmp_path, **limits)
            stack.callback(serving.close)
            return serving

        yield serve


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever write-back has waits as long as it may, also while nothing else comes."""
    monkeypatch.setattr("sftp_gateway.write_back.delivery.QUIET_SECONDS", 1000.0)


@pytest.fixture
def storage(request: pytest.FixtureRequest) -> RemoteFS:
    """What `start` delivers to: of the class that a test names by indirect parametrization."""
    return getattr(request, "param", RemoteFS)()


@pytest.fixture
def start(storage: RemoteFS, serve_write_back: ServeWriteBack, unhurried: None) -> ServeWriteBack:
    """Serve the storage with write-back; `limits` are those of write-back."""
    return partial(serve_write_back, storage)


@pytest.fixture
def start_gateway(tmp_path: Path) -> Iterator[StartGateway]:
    """Start gateways on free ports with settings; by default one user "ann" with an empty memory filesystem."""
    with ExitStack() as stack:

        def start(*, open_filesystem: Any = None, **settings: Any) -> SFTPGateway:
            settings.setdefault("users", (UserConfig(name="ann", password_hash=PASSWORD_HASH, url="mem://"),))
            config = GatewayConfig(
                **{"listen": "127.0.0.1:0", "state_folder": str(tmp_path / "state"), "drain_seconds": 0.0, **settings}
            )
            options = {} if open_filesystem is None else {"open_filesystem": open_filesystem}
            return stack.enter_context(SFTPGateway(config, **options))

        yield start


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Make SSH connections with paramiko; signed in where a name and a password or key are given."""
    with ExitStack() as stack:

        def make(gateway: SFTPGateway, name: str | None = None, secret: str | paramiko.PKey = "") -> paramiko.Transport:
            transport = paramiko.Transport(gateway.address)
            stack.callback(_close, transport)
            transport.start_client(timeout=20)
            if name is None:
                return transport
            if isinstance(secret, paramiko.PKey):
                transport.auth_publickey(name, secret)
            else:
                transport.auth_password(name, secret, fallback=False)
            return transport

        yield make


def _close(transport: paramiko.Transport) -> None:
    transport.close()
    transport.join(30)


class LogLines(Protocol):
    def __call__(self, event: str, at_least: int = 0) -> list[dict[str, Any]]: ...


@pytest.fixture
def log_lines(caplog: pytest.LogCaptureFixture) -> LogLines:
    """Return the fields of every line that was logged for an event, once there are so many."""
    caplog.set_level(logging.DEBUG, logger="sftp_gateway")
    logging.getLogger("sftp_gateway.paramiko").setLevel(logging.CRITICAL)

    def lines(event: str, at_least: int = 0) -> list[dict[str, Any]]:
        def found() -> list[dict[str, Any]]:
            return [record.__dict__["fields"] for record in caplog.records if record.__dict__.get("event") == event]

        eventually(lambda: len(found()) >= at_least, f"{event} was not logged")
        return found()

    return lines
