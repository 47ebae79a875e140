"""`WriteBackGateway`: a gateway process with write-back that dies at any moment and is started again."""

from __future__ import annotations

import signal
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

import paramiko

from fs_dropbox.emulator import Emulator
from sftp_gateway.write_back.journal_file import FILE_NAME
from sftp_gateway.write_back.journals import look_into
from tests.sftp_gateway.conftest import PASSWORD_HASH
from tests.sftp_gateway.connections import signed_in
from tests.sftp_gateway.program import begin
from tests.waiting import eventually

NAME_CALLS = ("files/move_v2", "files/delete_v2", "files/create_folder_v2", "files/move_batch_v2")


class WriteBackGateway:
    """A gateway process with one write-back user, that is killed and started again."""

    def __init__(
        self, emulator: Emulator, folder: Path, *, settings: str = "", delay_seconds: float = 0.2, url: str = ""
    ) -> None:
        self.folder = folder
        self.config = folder / "gateway.toml"
        self.config.write_text(
            f'listen = "127.0.0.1:0"\nstate_folder = "state"\nwrite_back_delay_seconds = {delay_seconds}\n{settings}\n'
            f'[[users]]\nname = "ann"\npassword_hash = "{PASSWORD_HASH}"\n'
            f'write_back = true\nurl = "{url or emulator.fs_url}"\n'
        )
        self.process: subprocess.Popen[str] | None = None
        self.port = 0

    def start(self) -> None:
        self.process, self.port = begin(self.config)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def client(self) -> AbstractContextManager[paramiko.SFTPClient]:
        return signed_in(self.port)


def settle(emulator: Emulator, gateway: WriteBackGateway) -> None:
    """Wait until nothing more is to come of what was under way when the gateway died, acknowledged or not.

    What is in the journal arrives, also if its client has not heard of that. What changes names is Dropbox's own call.
    """

    def is_settled() -> bool:
        if any(emulator.control.under_way(route) for route in NAME_CALLS):
            return False
        folders = [file.parent for file in gateway.folder.glob(f"state/journal/*/{FILE_NAME}")]
        return all((totals := look_into(folder)) is not None and not totals.is_anything_waiting for folder in folders)

    eventually(is_settled, "what is in the journal is not delivered", 60)
