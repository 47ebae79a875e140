"""rclone signs in by itself, and works with links, shared folders, shared files, teams and docs of the emulator."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from fs_dropbox.emulator import Emulator
from tests.clients import client

from .people import BOB
from .raw_api import Api

pytestmark = pytest.mark.interop

TIMEOUT_SECONDS = 120
Rclone = Callable[..., str]


def environment_of(emulator: Emulator, home: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "HTTPS_PROXY": emulator.proxy_url,
        "NO_PROXY": "127.0.0.1,localhost",
        "SSL_CERT_FILE": str(emulator.ca_file),
    }


@pytest.fixture
def rclone(emulator: Emulator, tmp_path: Path) -> Rclone:
    """Return a function that runs rclone as Bob, or with the credentials that it is given."""
    program = client("rclone")
    config = tmp_path / "rclone.conf"
    emulator.control.add_account(BOB, "Bob")

    def run(*arguments: str, app: str | None = None, account: str = BOB) -> str:
        grant = emulator.control.sign_in(account, app=app)
        token = {"access_token": "old", "token_type": "bearer", "expiry": "2020-01-01T00:00:00Z"}
        token["refresh_token"] = grant["refresh_token"]
        config.write_text(
            f"[dropbox]\ntype = dropbox\nclient_id = {grant['app_key']}\n"
            f"client_secret = {grant['app_secret']}\ntoken = {json.dumps(token)}\n"
        )
        command = [program, "--config", str(config), "--ca-cert", str(emulator.ca_file), "--retries", "1", *arguments]
        done = subprocess.run(
            command,
            env=environment_of(emulator, tmp_path),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_rclone_signs_in(emulator: Emulator, api: Api, tmp_path: Path) -> None:
    command = [client("rclone"), "authorize", "dropbox", emulator.app_key, emulator.app_secret]
    with subprocess.Popen(
        [*command, "--auth-no-open-browser", "--ca-cert", str(emulator.ca_file)],
        env=environment_of(emulator, tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            lines = []
            for line in process.stdout:
                lines.append(line)
                found = re.search(r"http://127\.0\.0\.1:\d+/auth\S+", line)
                if found is not None:
                    break
            else:
                pytest.fail("".join(lines))
            asked = api.http.get(found[0], allow_redirects=False, timeout=60).headers["Location"]
            assert parse_qs(urlsplit(asked).query)["token_access_type"] == ["offline"]
            answer = api.http.get(asked + "&approve=1", allow_redirects=False, timeout=60)
            # rclone ends as soon as it has the code, at times before the page that says so has been sent.
            with contextlib.suppress(requests.ConnectionError):
                api.http.get(answer.headers["Location"], timeout=60)
            rest, _ = process.communicate(timeout=TIMEOUT_SECONDS)
        finally:
            process.kill()
    token = json.loads(re.search(r"\{.*\}", rest, re.DOTALL)[0])  # type: ignore[index]
    form = {
        "grant_type": "refresh_token",
        "refresh_token": token["refresh_token"],
        "client_id": emulator.app_key,
        "client_secret": emulator.app_secret,
    }
    assert api.http.post("https://api.dropboxapi.com/oauth2/token", data=form, timeout=60).status_code == 200


def test_rclone_makes_a_link_once(emulator: Emulator, api: Api, rclone: Rclone) -> None:
    emulator.control.write("/a.txt", b"12345", account=BOB)
    url = rclone("link", "dropbox:a.txt").strip()
    assert api.http.get(url.replace("dl=0", "dl=1"), timeout=60).content == b"12345"
    assert rclone("link", "dropbox:a.txt").strip() == url
    assert len(emulator.control.links(account=BOB)) == 1


def test_rclone_reads_shared_folders_and_files(emulator: Emulator, rclone: Rclone) -> None:
    emulator.control.write("/Shared/a.txt", b"12345")
    emulator.control.write("/one.txt", b"1")
    emulator.control.share_folder_with_account("/Shared", BOB, mounted=False)
    emulator.control.share_file("/one.txt", BOB)
    assert rclone("lsf", "--dropbox-shared-folders", "dropbox:").split() == ["Shared/"]
    assert rclone("lsf", "--dropbox-shared-folders", "dropbox:Shared").split() == ["a.txt"]
    assert rclone("lsf", "--dropbox-shared-files", "dropbox:").split() == ["one.txt"]
    assert rclone("cat", "--dropbox-shared-files", "dropbox:one.txt") == "1"


def test_rclone_acts_as_a_team_member(emulator: Emulator, rclone: Rclone) -> None:
    emulator.control.add_team()
    emulator.control.add_member("ann@example.com", admin=True)
    emulator.control.add_member(BOB)
    emulator.control.write("/Bob/mine.txt", b"m", account=BOB)
    app = emulator.control.add_app("Team App", is_team=True)["app_key"]
    assert rclone("lsf", "--dropbox-impersonate", BOB, "dropbox:", app=app, account="ann@example.com").split() == [
        "mine.txt"
    ]


def test_rclone_sees_the_team_space(emulator: Emulator, rclone: Rclone) -> None:
    emulator.control.add_team()
    emulator.control.add_member("ann@example.com", admin=True)
    emulator.control.add_member(BOB)
    emulator.control.add_team_folder("Plans")
    root = emulator.control.account(BOB)["root_info"]["root_namespace_id"]
    assert rclone("lsf", "--dropbox-root-namespace", root, "dropbox:").split() == ["Bob/", "Plans/"]
    assert rclone("lsf", "dropbox:/").split() == ["Bob/", "Plans/"]


def test_rclone_exports_docs(emulator: Emulator, rclone: Rclone) -> None:
    emulator.control.make_paper("/Notes.paper", "# Title", account=BOB)
    assert rclone("lsf", "dropbox:").split() == ["Notes.html"]
    assert rclone("cat", "dropbox:Notes.html") == "<html><body><h1>Title</h1></body></html>"
