"""Filesystems over the account that an emulator begins with."""

from __future__ import annotations

from typing import Any

from fs_dropbox import DropboxFS
from fs_dropbox.emulator import Emulator
from tests.waiting import eventually


def access_to(emulator: Emulator) -> dict[str, Any]:
    """Return the arguments of DropboxFS that lead to the emulator's first account."""
    return {
        "app_key": emulator.app_key,
        "app_secret": emulator.app_secret,
        "refresh_token": emulator.refresh_token,
        "api_host": emulator.host,
        "ca_certs": emulator.ca_file,
    }


def open_account(emulator: Emulator, **arguments: Any) -> DropboxFS:
    """Open that account, with further arguments of DropboxFS, or others."""
    return DropboxFS(**(access_to(emulator) | arguments))


def live(account: DropboxFS) -> DropboxFS:
    """Wait until the feed of a filesystem is live, which begins with its first use."""
    account.exists("anything")
    eventually(lambda: account.feed_is_live)
    return account
