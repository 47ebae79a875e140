"""The files in deploy/ fit the program and the tools that read them."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients import client
from tests.root import ROOT
from tests.sftp_gateway.program import call

UNIT = ROOT / "deploy" / "sftp-gateway.service"
CONTAINERFILE = ROOT / "deploy" / "Containerfile"


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, with the program of this environment in place of the one that is to be installed."""
    path = tmp_path / UNIT.name
    path.write_text(UNIT.read_text().replace("/opt/sftp-gateway/bin", str(Path(sys.executable).parent)))
    return path


@pytest.mark.interop
def test_systemd_takes_every_line_of_the_unit(unit: Path) -> None:
    done = subprocess.run(
        [client("systemd-analyze"), "verify", "--man=no", unit],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert unit.name not in done.stderr


@pytest.mark.interop
def test_systemd_finds_the_unit_well_confined(unit: Path) -> None:
    command = [client("systemd-analyze"), "security", "--offline=yes", "--threshold=20", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-200:]


@pytest.mark.interop
def test_a_template_keeps_instances_apart(unit: Path) -> None:
    """As docs/operations.md has one made."""
    command = re.search(r"(sed -e .*?) \\\n +deploy/", (ROOT / "docs" / "operations.md").read_text())
    assert command
    made = subprocess.run(["sh", "-c", f"{command[1]} {unit}"], capture_output=True, text=True, timeout=30, check=True)
    settings = [line for line in made.stdout.splitlines() if "=" in line and not line.startswith(("#", "Description="))]
    shared = [line for line in settings if "sftp-gateway" in line.replace("bin/sftp-gateway", "") and "%i" not in line]
    assert not shared
    assert sum("%i" in line for line in settings) == 7
    template = unit.with_name("sftp-gateway@.service")
    template.write_text(made.stdout)
    done = subprocess.run(
        [client("systemd-analyze"), "verify", "--man=no", template.with_name("sftp-gateway@one.service")],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")
    assert "sftp-gateway" not in done.stderr


def test_one_user_who_cannot_sign_in_keeps_nobody_else_out() -> None:
    """The gateway serves the others (test_log_lines.py), so what is looked at first must not stop it."""
    assert re.search(r"^ExecStartPre=-\S+ check-config ", UNIT.read_text(), re.MULTILINE)


def test_a_mistake_in_the_settings_is_not_tried_again(tmp_path: Path) -> None:
    found = re.search(r"^RestartPreventExitStatus=(\d+)$", UNIT.read_text(), re.MULTILINE)
    assert found
    hopeless = int(found[1])
    config = tmp_path / "gateway.toml"

    def serve(settings: str) -> int:
        config.write_text(f'state_folder = "state"\n{settings}\n')
        return call("serve", "--config", config).returncode

    (tmp_path / "key").touch(0o644)
    hook = '[[hooks]]\nevents = ["upload"]\nurl = "https://example.com/"\nsecret_file = "no"'
    files = ('host_keys = ["key"]', 'log_file = "no/log"', hook, f"processes = 2\n{hook}")
    for mistake in ("x =", 'liste = "x"', "workers = 0", 'listen = "x"', *files):
        assert serve(mistake) == hopeless, mistake
    with socket.create_server(("127.0.0.1", 0)) as taken:
        in_use = f'listen = "127.0.0.1:{taken.getsockname()[1]}"'
        for passes in (in_use, f"{in_use}\nprocesses = 2", 'listen = "192.0.2.1:2222"'):
            assert serve(passes) not in (0, hopeless), passes


def test_the_commands_of_the_files_exist(tmp_path: Path) -> None:
    called = [*re.findall(r"bin/sftp-gateway ([a-z-]+)", UNIT.read_text()), "serve"]
    assert set(called) == {"check-config", "serve"}
    for command in called:
        assert call(command, "--help").returncode == 0
    config = tmp_path / "gateway.toml"
    config.write_text("")
    variables = re.findall(r"(SFTP_GATEWAY_\w+)=", UNIT.read_text() + CONTAINERFILE.read_text())
    assert len(variables) >= 5
    settings = call("check-config", config).stdout
    for name in set(variables) - {"SFTP_GATEWAY_CONFIG"}:
        assert f"\n{name.removeprefix('SFTP_GATEWAY_').lower()} = " in f"\n{settings}"


def test_the_container_is_built_from_what_is_there() -> None:
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", CONTAINERFILE.read_text(), re.MULTILINE)
    names = [name for line in copied for name in line.split()]
    assert {"setup.cfg", "pyproject.toml", "fs_dropbox", "sftp_gateway"} <= set(names)
    for name in names:
        assert (ROOT / name).exists()
