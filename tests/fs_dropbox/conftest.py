"""An emulated account, and filesystems over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fs_dropbox import DropboxFS
from fs_dropbox.emulator import Emulator


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator() as running:
        yield running


@pytest.fixture
def open_dropbox(emulator: Emulator) -> Iterator[Callable[..., DropboxFS]]:
    """Open the emulated account, with arguments of DropboxFS; each is closed at the end."""
    opened: list[DropboxFS] = []

    def open_dropbox(**arguments: Any) -> DropboxFS:
        defaults = {
            "app_key": emulator.app_key,
            "app_secret": emulator.app_secret,
            "refresh_token": emulator.refresh_token,
            "api_host": emulator.host,
            "ca_certs": emulator.ca_file,
        }
        opened.append(DropboxFS(**(defaults | arguments)))
        return opened[-1]

    yield open_dropbox
    for dropbox_fs in opened:
        dropbox_fs.close()


@pytest.fixture
def dropbox_fs(open_dropbox: Callable[..., DropboxFS]) -> DropboxFS:
    return open_dropbox()
