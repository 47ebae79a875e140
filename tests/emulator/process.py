"""The emulator as a process."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from typing import Any

import requests


class Process:
    """A running `python -m fs_dropbox.emulator` and what it printed."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "fs_dropbox.emulator", "--port", "0", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if line.startswith("Ready"):
                break
        self.url = self.lines[0].split()[-1]
        self.key, self.secret, self.refresh_token = self.lines[1].split()[-3:]
        self.variables = dict(
            shlex.split(line)[1].split("=", 1) for line in self.lines if line.startswith("  export DROPBOX")
        )
        ca_line = next(line for line in self.lines if "REQUESTS_CA_BUNDLE" in line)
        self.http = requests.Session()
        self.ca_file = shlex.split(ca_line)[1].split("=", 1)[1]
        self.token: str = ""

    def sign_in(self) -> None:
        form = {
            "grant_type": "refresh_token",
            "refresh_token": self.refresh_token,
            "client_id": self.key,
            "client_secret": self.secret,
        }
        answer = self.http.post(f"{self.url}/oauth2/token", data=form, verify=self.ca_file, timeout=30)
        self.token = answer.json()["access_token"]

    def call(self, route: str, arg: Any, body: bytes | None = None) -> Any:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        data = json.dumps(arg).encode()
        if body is not None:
            headers |= {"Content-Type": "application/octet-stream", "Dropbox-API-Arg": data.decode()}
            data = body
        url = f"{self.url}/2/{route}"
        response = self.http.post(url, data=data, headers=headers, verify=self.ca_file, timeout=30)
        assert response.status_code == 200, response.text
        return response.json() if "download" not in route else response.content

    def end(self, number: int) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(20)
        self.http.close()
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.process.stdout.close()
        self.process.stderr.close()
        return code
