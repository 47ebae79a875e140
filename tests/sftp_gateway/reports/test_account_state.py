"""What a filesystem tells of its storage, through the seam, in the gateway's metrics."""

from __future__ import annotations

import threading

import pytest

from fs_dropbox.dropboxfs import DropboxFS
from fs_dropbox.emulator import Emulator
from sftp_gateway import UserConfig
from tests.sftp_gateway.conftest import PASSWORD, PASSWORD_HASH, Connect, StartGateway
from tests.sftp_gateway.connections import sftp
from tests.sftp_gateway.scraping import address, scraped
from tests.waiting import eventually


@pytest.mark.parametrize("write_back", [False, True])
def test_throttled_and_unfollowed_accounts_are_counted(
    start_gateway: StartGateway, connect: Connect, write_back: bool
) -> None:
    opened: list[DropboxFS] = []
    with Emulator() as emulator:

        def open_filesystem(_url: str) -> DropboxFS:
            opened.append(
                DropboxFS(
                    app_key=emulator.app_key,
                    app_secret=emulator.app_secret,
                    refresh_token=emulator.refresh_token,
                    api_host=emulator.host,
                    ca_certs=str(emulator.ca_file),
                )
            )
            return opened[-1]

        user = UserConfig(name="ann", password_hash=PASSWORD_HASH, url="dropbox://", write_back=write_back)
        gateway = start_gateway(users=(user,), metrics="127.0.0.1:0", open_filesystem=open_filesystem)
        client = sftp(connect(gateway, "ann", PASSWORD))
        client.listdir("/")
        eventually(lambda: scraped(address(gateway))("accounts_unfollowed") == 0)
        assert scraped(address(gateway))("accounts") == 1
        assert scraped(address(gateway))("accounts_throttled") == 0
        emulator.control.fault("files/create_folder_v2", "rate_limit", retry_after=3)
        throttled = threading.Thread(target=client.mkdir, args=("/d",))
        throttled.start()
        eventually(lambda: scraped(address(gateway))("accounts_throttled") == 1)
        throttled.join()
        eventually(lambda: scraped(address(gateway))("accounts_throttled") == 0)
        gateway.stop()
