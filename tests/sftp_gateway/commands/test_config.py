"""Where settings come from, and one clear line for every mistake."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from sftp_gateway.config import (
    GATEWAY_FIELDS,
    ConfigError,
    GatewayConfig,
    description,
    parse_address,
    settings_table,
)
from sftp_gateway.loading import load_config
from tests.root import ROOT

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "gateway.toml"
        path.write_text(text)
        return path

    return write


def reason(file: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(file, environment={})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_flag_over_environment_over_file_over_default(write: Write) -> None:
    file = write("max_connections = 1\nworkers = 1\nidle_seconds = 1\n")
    environment = {"SFTP_GATEWAY_WORKERS": "2", "SFTP_GATEWAY_IDLE_SECONDS": "2"}
    config = load_config(file, environment=environment, flags={"idle_seconds": "3"})
    assert (config.max_connections, config.workers, config.idle_seconds) == (1, 2, 3.0)
    assert config.login_seconds == GatewayConfig().login_seconds


def test_texts_become_the_types_of_the_settings() -> None:
    environment = {
        "SFTP_GATEWAY_CREDENTIAL_LOGINS": "false",
        "SFTP_GATEWAY_BAN_EXEMPT": "10.0.0.0/8, ::1",
        "SFTP_GATEWAY_LOG_FORMAT": "json",
        "SFTP_GATEWAY_USERS": "not a setting of the environment",
    }
    config = load_config(environment=environment, flags={"host_keys": ("/a", "/b")})
    assert config.credential_logins is False
    assert config.ban_exempt == ("10.0.0.0/8", "::1")
    assert config.host_keys == ("/a", "/b")


def test_files_are_found_beside_the_file_that_names_them(write: Write, tmp_path: Path) -> None:
    file = write(
        'state_folder = "state"\nhost_keys = ["key"]\n'
        '[[users]]\nname = "ann"\npublic_keys_file = "keys"\nurl_file = "/abs/url"\n'
        '[[hooks]]\nevents = ["upload"]\nurl = "http://x/"\nsecret_file = "secret"\n'
    )
    config = load_config(file, environment={})
    assert config.state_path == tmp_path / "state"
    assert config.host_keys == (str(tmp_path / "key"),)
    assert config.users[0].public_keys_file == str(tmp_path / "keys")
    assert config.users[0].url_file == "/abs/url"
    assert config.hooks[0].secret_file == str(tmp_path / "secret")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("listen = ", "is not TOML: "),
        ("max_conections = 1", "unknown key 'max_conections'; did you mean 'max_connections'?"),
        ("[server]\nx = 1", "unknown key 'server'; "),
        ("max_connections = '1'", "max_connections: must be a whole number, 1 or more (Connections at once)"),
        ("max_connections = 0", "max_connections: must be a whole number, 1 or more"),
        ("idle_seconds = 0", "idle_seconds: must be a number above 0 (Silence after"),
        ("credential_logins = 'yes'", "credential_logins: must be true or false"),
        ("listen = 2222", "listen: must be text in quotes"),
        ("ban_exempt = 'x'", "ban_exempt: must be a list: [ … ]"),
        ("ban_exempt = [1]", "ban_exempt: must be a list of text in quotes"),
        ("[users]\nname = 'a'", "users: must be one or several tables [[users]]"),
        ("[[users]]\nname = ''", "user number 1: name: must be text in quotes, and not empty"),
        ("[[hooks]]\nevents = ['upload', 'boom']", "events: 'boom' is none of login, login_failed, upload"),
        ("listen = '1.2.3.4'", "listen: '1.2.3.4' is not ADDRESS:PORT"),
        ("log_level = 'loud'", "log_level: 'loud' is none of debug, info, warning, error"),
        ("ban_exempt = ['home']", "ban_exempt: 'home' is not an address or network"),
        ("credential_url = 'mem://'", "credential_url: has no {user}"),
        ("[[users]]\nname = 'a'\nroot_folder = '/'", "user a: unknown key 'root_folder'"),
        ("[[users]]\nname = 'a'\nrights = 'rw'\nurl = 'mem://'", "user a: rights: 'rw' is none of read-write"),
        ("[[users]]\nroot = '/'", "user number 1: name is missing (The login name)"),
        ("[[users]]\nname = 'a'\npassword_hash = '$argon2id$'", "user a: no url is given; give one of url, url_env"),
        (
            "[[users]]\nname = 'a'\npassword_hash = '$argon2id$'\nurl = 'x'\nurl_env = 'Y'",
            "user a: url and url_env are given; give one",
        ),
        (
            "[[users]]\nname = 'a'\nurl = 'mem://'\npublic_keys = ['k']\nroot = '../other'",
            "user a: root: ../other leads out of the user's filesystem",
        ),
        (
            "[[users]]\nname = 'a'\nurl = 'mem://'\npublic_keys = ['k']\nnetworks = ['home']",
            "user a: networks: 'home' is not an address or network",
        ),
        ("[[users]]\nname = 'a'\nurl = 'mem://'", "user a: cannot sign in; give password_hash, public_keys"),
        (
            "[[users]]\nname = 'a'\nurl = 'mem://'\npassword_hash = 'secret'",
            "make one with: sftp-gateway hash-password",
        ),
        (
            "[[users]]\nname = 'a'\nurl = 'm'\npublic_keys = ['k']\n" * 2,
            "user a: is there twice",
        ),
        ("[[hooks]]\nevents = []\nurl = 'http://x/'", "events: is empty: it would never be told anything"),
        (
            "[[hooks]]\nevents = ['upload']\ncommand = ['/bin/true']\nsecret = 'hunter2'",
            "a command gets no signature: secret is for a url",
        ),
        (
            "[[hooks]]\nevents = ['upload']\nurl = 'http://x/'\nsecret = 'hunter2'\nsecret_file = 'file'",
            "secret and secret_file are given; give one of them",
        ),
        (
            "credential_logins = false\n[[hooks]]\nevents = ['upload']\nurl = 'http://x/'\nusers = ['ann']",
            "users: there is no user 'ann'",
        ),
    ],
)
def test_a_mistake_is_one_line_with_file_key_and_reason(write: Write, text: str, said: str) -> None:
    file = write(text)
    assert re.match(rf"{re.escape(str(file))}(:\d+)?: ", reason(file))
    assert said in reason(file)


def test_a_hook_may_be_about_people_who_sign_in_with_credentials(write: Write) -> None:
    load_config(write("[[hooks]]\nevents = ['upload']\nurl = 'http://x/'\nusers = ['KEY']"), environment={})


def test_a_mistake_never_shows_a_secret(write: Write) -> None:
    file = write("[[users]]\nname = 'a'\nurl = 'dropbox://KEY:TOKEN@/'\npassword_hash = 'hunter2'")
    assert "hunter2" not in reason(file)
    assert "TOKEN" not in reason(file)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    assert reason(tmp_path / "nowhere.toml").endswith("nowhere.toml: cannot be read: No such file or directory")


def test_a_flag_mends_what_the_file_has_wrong(write: Write) -> None:
    file = write('workers = "many"')
    with pytest.raises(ConfigError, match="workers: must be a whole number"):
        load_config(file, environment={})
    assert load_config(file, environment={}, flags={"workers": "3"}).workers == 3


def test_mistakes_of_flags_and_variables_name_them() -> None:
    with pytest.raises(ConfigError, match=r"^--workers: must be a whole number"):
        load_config(environment={}, flags={"workers": "many"})
    with pytest.raises(ConfigError, match=r"^SFTP_GATEWAY_WORKERS: must be a whole number"):
        load_config(environment={"SFTP_GATEWAY_WORKERS": "many"})


@pytest.mark.parametrize(
    ("text", "address"),
    [("1.2.3.4:22", ("1.2.3.4", 22)), ("[::1]:0", ("::1", 0)), (":2222", ("0.0.0.0", 2222)), ("h:1", ("h", 1))],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "1.2.3.4", "::1:22", "h:70000", "h:x", "[::1]"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="ADDRESS:PORT"):
        parse_address(text)


def test_the_state_folder_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert GatewayConfig().state_path == Path("/state/sftp-gateway")


def test_every_setting_says_what_it_does() -> None:
    for field in GATEWAY_FIELDS.values():
        assert description(field).endswith(".")


def test_the_documentation_has_the_table_of_settings() -> None:
    """Renew it with: sftp-gateway settings."""
    assert settings_table() in (ROOT / "docs" / "configuration.md").read_text()
