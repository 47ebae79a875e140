"""Foreign programs on a stack: run to their end, which must be a good one."""

from __future__ import annotations

import os
from pathlib import Path

from tests.clients import client

from .stack import KEY, Done, Stack, run


def restic(stack: Stack, *arguments: str | Path) -> Done:
    command = f"{client('ssh')} -F {stack.ssh_config} {KEY} -s sftp"
    options = ["--no-cache", "-r", f"sftp:{KEY}:/backup", "-o", f"sftp.command={command}"]
    environment = {"RESTIC_PASSWORD": "secret", "RESTIC_PROGRESS_FPS": "0.1"}
    done = run([client("restic"), *options, *arguments], environment=environment, folder=stack.folder)
    assert done.code == 0, done.err
    return done


def lftp(stack: Stack, *lines: str) -> str:
    settings = (
        f'set sftp:connect-program "ssh -a -x -F {stack.ssh_config}"',
        "set sftp:auto-confirm yes",
        "set net:max-retries 1",
        "set net:timeout 30",
        "set cmd:fail-exit yes",
        f"open -u ann, sftp://{KEY}",
    )
    done = run([client("lftp"), "--norc", "-c", "; ".join([*settings, *lines])], folder=stack.folder)
    assert done.code == 0, done.out + done.err
    return done.out


def rclone(stack: Stack, *arguments: str) -> str:
    config = stack.folder / "rclone.conf"
    config.write_text(
        f"[box]\ntype = sftp\nhost = 127.0.0.1\nport = {stack.port}\nuser = ann\nkey_file = {stack.folder}/id\n"
        "shell_type = none\n"
    )
    command = [client("rclone"), "--config", str(config), "--retries", "1", "--low-level-retries", "1", *arguments]
    done = run(command, environment={"HOME": str(stack.folder), "PATH": os.environ["PATH"]}, folder=stack.folder)
    assert done.code == 0, done.out + done.err
    return done.out
