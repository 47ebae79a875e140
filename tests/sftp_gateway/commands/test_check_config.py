"""check-config: all mistakes with their lines, and warnings of what is risky."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sftp_gateway.config import HookConfig
from sftp_gateway.reports.hooks import read_secret
from tests.sftp_gateway.conftest import PASSWORD_HASH
from tests.sftp_gateway.program import USER, call


def test_check_config_tells_all_mistakes_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(
        'liste = "x"\n'
        "max_connections = 0\n"
        'ban_exempt = ["home"]\n'
        "[[users]]\n"
        'name = "ann"\n'
        'rights = "all"\n'
        "[[users]]\n"
        "# no name\n"
        'url = "mem://"\n'
        "[[users]]\n"
        'name = "bob"\n'
        'password_hash = "secret"\n'
        "[[hooks]]\n"
        'events = ["upload", "explosion"]\n'
        'url = "ftp://x"\n'
    )
    done = call("check-config", file)
    assert done.returncode == 2
    assert done.stdout == ""
    told = [line.removeprefix(f"sftp-gateway: {file}:") for line in done.stderr.splitlines()]
    assert [re.sub(r" \([A-Z].*", "", line) for line in told] == [
        "1: unknown key 'liste'; did you mean 'listen'?",
        "2: max_connections: must be a whole number, 1 or more",
        "6: user ann: rights: 'all' is none of read-write, read-only, write-only",
        "7: user number 2: name is missing",
        "14: hook number 1: events: 'explosion' is none of login, login_failed, upload, upload_failed, download, "
        "remove, rename, mkdir, rmdir",
        "3: ban_exempt: 'home' is not an address or network",
        "11: user bob: no url is given; give one of url, url_env, url_file",
        "12: user bob: password_hash: is not a hash; make one with: sftp-gateway hash-password",
    ]
    problems = json.loads(call("check-config", "--json", file).stdout)["problems"]
    assert len(problems) == 8
    assert problems[2]["where"] == f"{file}:6"
    assert problems[2]["field"] == "users.rights"
    assert call("serve", "--config", file).stderr.endswith("(and 7 more; `sftp-gateway check-config` tells all)\n")


@pytest.mark.parametrize("content", [None, "this is no certificate"], ids=["missing", "invalid"])
def test_check_config_reads_the_certificates_that_urls_name(tmp_path: Path, content: str | None) -> None:
    bundle = tmp_path / "ca.pem"
    if content is not None:
        bundle.write_text(content)
    file = tmp_path / "gateway.toml"
    url = f"dropbox://KEY~APPSECRET:TOKEN@/?ca_certs={bundle}"
    file.write_text(f'url_parameters = "ca_certs={bundle}"\n{USER.replace("mem://", url)}')
    file.chmod(0o600)
    done = call("check-config", "--quiet", file)
    assert done.returncode == 2
    reason = "No such file or directory" if content is None else "there is no PEM certificate in it"
    assert [line.removeprefix(f"sftp-gateway: {file}: ") for line in done.stderr.splitlines()] == [
        f"user ann: the parameter ca_certs of the Dropbox URL: {bundle}: {reason}",
        f"url_parameters: the parameter ca_certs of the Dropbox URL: {bundle}: {reason}",
    ]


def test_check_config_knows_the_parameters_of_logins_with_credentials(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text('url_parameters = "rot=home"\n')
    told = call("check-config", "--quiet", file).stderr
    assert told.startswith(
        f"sftp-gateway: {file}: url_parameters: unknown parameter 'rot' in the Dropbox URL; there are "
    )
    file.write_text('url_parameters = "rot=home"\ncredential_logins = false\n')
    assert call("check-config", "--quiet", file).returncode == 0
    file.write_text('credential_url = "gopher://{user}:{password}@/"\n')
    told = call("check-config", "--quiet", file).stderr
    assert told == f"sftp-gateway: {file}: credential_url: no filesystem is installed for gopher:// URLs\n"


def test_check_config_finds_lines_beside_long_texts(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text('listen = """\\\nworkers = 0\n[[users]]\n"""\nworkers = 0\n')
    assert f"{file}:5: workers:" in call("check-config", file).stderr


def test_check_config_warns_of_what_is_risky(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("mem://")
    (tmp_path / "url").chmod(0o644)
    (tmp_path / "keys").write_text("")
    (tmp_path / "keys").chmod(0o666)
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    file = tmp_path / "gateway.toml"
    file.write_text(
        'state_folder = "state"\n'
        'metrics = "0.0.0.0:9322"\nban_failures = 0\nban_exempt = ["0.0.0.0/0"]\nproxy_protocol = ["::/0"]\n'
        'connections_per_minute = 0\nrate_exempt = ["::/1"]\n'
        f'compatible_algorithms = true\nprocesses = 1000\n{USER}url_file = "url"\n'.replace('url = "mem://"\n', "")
        + 'public_keys_file = "keys"\nwrite_back = true\nrights = "read-only"\n'
        + '[[hooks]]\nevents = ["upload"]\nurl = "http://example.com/x?key=of-the-url"\n'
    )
    file.chmod(0o644)
    done = call("check-config", file)
    assert done.returncode == 0
    warned = done.stderr
    for text in (
        "holds secrets and can be read by other users",
        f"state_folder: {tmp_path / 'state'} can be changed by every user",
        "user ann: url_file: ",
        "user ann: public_keys_file: every user of this machine can add a key",
        "user ann: write_back: does nothing for who may only read; take one of the two out",
        "hook http://example.com: no secret",
        "hook http://example.com: url: names and paths go over the network unencrypted",
        "metrics: 0.0.0.0:9322 can be read by everybody",
        "ban_failures: 0 lets everybody guess",
        "ban_exempt: 0.0.0.0/0 is most of the world, and is never banned",
        "connections_per_minute: 0 lets everybody",
        "rate_exempt: ::/1 is most of the world, and may connect at any rate",
        "proxy_protocol: ::/0 is most of the world, and may claim",
        "compatible_algorithms: ",
        "processes: 1000 processes share",
    ):
        assert text in warned
    assert "of-the-url" not in done.stdout + warned


def test_check_config_warns_where_nobody_can_sign_in(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text("credential_logins = false\n")
    told = call("check-config", "--quiet", tmp_path / "gateway.toml").stderr
    assert told.endswith("warning: users: there are none, and credential_logins is off: nobody can sign in\n")


def test_check_config_tells_of_variables_that_are_no_settings(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text("")
    done = call("check-config", file, SFTP_GATEWAY_MAX_CONECTIONS="5", SFTP_GATEWAY_CONFIG="other.toml")
    assert done.returncode == 0
    assert done.stderr == (
        f"sftp-gateway: {file}: warning: SFTP_GATEWAY_MAX_CONECTIONS: is no setting; "
        "did you mean SFTP_GATEWAY_MAX_CONNECTIONS?\n"
    )


def test_a_variable_in_a_path_that_is_not_set_is_said(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(USER.replace('url = "mem://"', 'url_file = "$NOT_SET_HERE/url"'))
    told = call("check-config", "--quiet", file).stderr.splitlines()[0]
    assert told.endswith("/$NOT_SET_HERE/url: No such file or directory (no such variable is set here)")


def test_check_config_of_a_sound_file_warns_of_nothing(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(f"credential_logins = false\n{USER}")
    file.chmod(0o600)
    done = call("check-config", file)
    assert (done.returncode, done.stderr) == (0, "")
    assert call("check-config", "--quiet", file).stdout == ""
    checked = json.loads(call("check-config", "--json", file).stdout)
    assert checked["problems"] == checked["warnings"] == []
    assert checked["settings"]["credential_logins"] is False
    assert PASSWORD_HASH not in str(checked)


def test_files_from_windows_are_read(tmp_path: Path) -> None:
    """Its editors end lines with CR LF, and some put a mark in front of UTF-8."""
    files = {
        "key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5\n",
        "hash": f"{PASSWORD_HASH}\n",
        "url": "mem://\n",
        "secret": "a secret\n",
        "gateway.toml": '[[users]]\nname = "ann"\n'
        'public_keys_file = "key"\npassword_hash_file = "hash"\nurl_file = "url"\n',
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8-sig", newline="\r\n")
    done = call("check-config", "--quiet", tmp_path / "gateway.toml")
    assert done.returncode == 0, done.stderr
    assert read_secret(HookConfig(events=("login",), secret_file=str(tmp_path / "secret"))) == "a secret"
