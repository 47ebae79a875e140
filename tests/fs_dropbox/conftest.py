"""An emulated account, and filesystems over it."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fs.base import FS
from fs.osfs import OSFS

from fs_dropbox import DropboxFS
from fs_dropbox.api.auth import Credentials
from fs_dropbox.api.client import Client
from fs_dropbox.api.retry import RetryPolicy
from fs_dropbox.commands.program import run
from fs_dropbox.content_hash import BLOCK_SIZE
from fs_dropbox.emulator import Emulator
from fs_dropbox.metadata.cache import MetadataCache
from fs_dropbox.uploads.upload import Uploader
from tests.fs_dropbox.accounts import open_account
from tests.fs_dropbox.commands.command_line import Cli, Done
from tests.fs_dropbox.metadata.cached import followed_cache


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator() as running:
        yield running


@pytest.fixture
def open_dropbox(emulator: Emulator) -> Iterator[Callable[..., DropboxFS]]:
    """Open the emulated account, with arguments of DropboxFS; each is closed at the end."""
    opened: list[DropboxFS] = []

    def open_dropbox(**arguments: Any) -> DropboxFS:
        opened.append(open_account(emulator, **arguments))
        return opened[-1]

    yield open_dropbox
    for dropbox_fs in opened:
        dropbox_fs.close()


@pytest.fixture
def dropbox_fs(open_dropbox: Callable[..., DropboxFS]) -> DropboxFS:
    return open_dropbox()


@pytest.fixture
def make_client(emulator: Emulator) -> Iterator[Callable[..., Client]]:
    """Make clients of the emulated account, impatient ones; arguments are those of Client and Credentials."""
    made: list[Client] = []

    def make_client(**arguments: Any) -> Client:
        fields = [field.name for field in dataclasses.fields(Credentials)]
        given = {name: arguments.pop(name) for name in fields if name in arguments}
        default = {
            "app_key": emulator.app_key,
            "app_secret": emulator.app_secret,
            "refresh_token": emulator.refresh_token,
        }
        settings: dict[str, Any] = {
            "api_host": emulator.host,
            "ca_certs": str(emulator.ca_file),
            "policy": RetryPolicy(attempts=4, deadline_seconds=20.0, first_pause_seconds=0.01),
            "timeout_seconds": 10.0,
        }
        made.append(Client(Credentials(**(given or default)), **(settings | arguments)))
        return made[-1]

    yield make_client
    for client in made:
        client.close()


@pytest.fixture
def client(make_client: Callable[..., Client]) -> Client:
    return make_client()


@pytest.fixture
def cache() -> MetadataCache:
    """A cache with a live change feed."""
    return followed_cache()


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A local folder: files large, small, empty and deep, and an empty folder."""
    (tmp_path / "src" / "sub" / "deep").mkdir(parents=True)
    (tmp_path / "src" / "empty").mkdir()
    (tmp_path / "src" / "a.txt").write_bytes(b"a" * 10)
    (tmp_path / "src" / "sub" / "b.bin").write_bytes(os.urandom(3_000_000))
    (tmp_path / "src" / "sub" / "deep" / "ü \U0001f600.txt").write_bytes(b"")
    return tmp_path / "src"


@pytest.fixture
def source(local: Path) -> Iterator[FS]:
    """The same as a filesystem."""
    with OSFS(str(local)) as filesystem:
        yield filesystem


numbers = itertools.count()


@pytest.fixture
def folder(emulator: Emulator) -> str:
    """A folder of the test's own, with a file and a folder in it."""
    path = f"/Test {next(numbers)}"
    emulator.control.seed(f"{path}/file.txt", b"seeded content")
    emulator.control.seed(f"{path}/folder/inner.txt", b"inner")
    return path


@pytest.fixture
def account(open_dropbox: Callable[..., DropboxFS]) -> DropboxFS:
    """The account without the change feed, whose own calls cannot be told from others'."""
    return open_dropbox(change_feed=False, cache_ttl_seconds=3600)


@pytest.fixture
def cli(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Run a command with the emulated account as the default."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("ACCOUNT", emulator.fs_url)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def call(command: str, *arguments: str) -> Done:
        capfd.readouterr()
        code = run([command, "--url-env", "ACCOUNT", *arguments])
        return Done(code, *capfd.readouterr())

    return call


@pytest.fixture
def seeded(emulator: Emulator) -> Emulator:
    """An account with some files and folders."""
    control = emulator.control
    control.write("/Docs/a.txt", b"alpha", 1_600_000_000)
    control.write("/Docs/Sub/B.bin", bytes(2000), 1_600_000_000)
    control.write("/Docs/Sub/{c} ü.txt", b"", 1_600_000_000)
    control.seed("/Empty")
    return emulator


@pytest.fixture
def make_uploader() -> Iterator[Callable[..., Uploader]]:
    made: list[Uploader] = []

    def make_uploader(client: Client, **arguments: Any) -> Uploader:
        made.append(Uploader(client, **({"block_bytes": BLOCK_SIZE} | arguments)))
        return made[-1]

    yield make_uploader
    for uploader in made:
        uploader.client.close()  # type: ignore[attr-defined]
        uploader.close()


@pytest.fixture
def uploader(client: Client, make_uploader: Callable[..., Uploader]) -> Uploader:
    return make_uploader(client)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients try a call three times at most, one soon after the other."""
    policy = RetryPolicy(attempts=3, deadline_seconds=20.0, first_pause_seconds=0.01)
    monkeypatch.setattr("fs_dropbox.api.client.RetryPolicy", lambda: policy)
