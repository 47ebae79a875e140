"""Logging in, through the emulator's consent page, with a scripted browser or a pasted code."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import stat
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import fs
import pytest

from fs_dropbox.api.auth import Credentials
from fs_dropbox.emulator import Emulator
from fs_dropbox.login import login as logins
from fs_dropbox.login.login import Login, LoginError
from tests.fs_dropbox.commands.command_line import code_on, environment, run, start, visit

BROWSER = """
import os, ssl, sys, urllib.request
context = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
urllib.request.urlopen(sys.argv[1] + os.environ["ANSWER"], context=context, timeout=30).read()
"""


def _free_port(emulator: Emulator) -> int:
    """Return a port to which the default apps may send browsers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = int(server.getsockname()[1])
    for key in (emulator.app_key, emulator.pkce_app_key):
        emulator.control.set_redirect_uris([f"http://localhost:{port}/"], app=key)
    return port


@pytest.fixture
def env(emulator: Emulator, tmp_path: Path) -> dict[str, str]:
    script = tmp_path / "browser.py"
    script.write_text(BROWSER)
    return environment(emulator, tmp_path, BROWSER=f"{sys.executable} {script} %s", ANSWER="&approve=1")


def _stored(env: dict[str, str]) -> dict[str, dict[str, str]]:
    path = Path(env["XDG_CONFIG_HOME"]) / "fs-dropbox" / "connections.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return dict(json.loads(path.read_text())["connections"])


def _paste(emulator: Emulator, env: dict[str, str], *arguments: str, answer: str = "approve=1") -> tuple[int, str, str]:
    """Log in with --no-browser: read the address, visit it, paste the code."""
    with start("login", "--no-browser", *arguments, env=env) as process:
        assert process.stderr is not None
        assert process.stdin is not None
        said = ""
        for line in process.stderr:
            said += line
            if line.strip().startswith("https://"):
                code = code_on(visit(line.strip(), emulator.ca_file, answer))
                output, rest = process.communicate(code + "\n", timeout=60)
                return process.returncode, output, said + rest
    pytest.fail(said)


# The walk through the browser


@pytest.mark.parametrize("secret", [True, False], ids=["with secret", "PKCE"])
def test_the_browser_comes_back_and_the_connection_works(emulator: Emulator, env: dict[str, str], secret: bool) -> None:
    key = emulator.app_key if secret else emulator.pkce_app_key
    if secret:
        env["DROPBOX_APP_SECRET"] = emulator.app_secret
    done = run("login", "--app-key", key, "--port", str(_free_port(emulator)), env=env)
    assert (done.returncode, done.stdout) == (
        0,
        "Connected as Ann Example (ann@example.com): stored as 'Dropbox (Ann Example)'. Try: fs-dropbox ls\n",
    ), done.stderr
    connection = _stored(env)["Dropbox (Ann Example)"]
    assert connection["url"].startswith(f"dropbox://{key}~{emulator.app_secret if secret else ''}:")
    emulator.control.write("/hello.txt", b"hello")
    assert run("ls", env=env).stdout == "hello.txt\n"
    checked = run("check", env=env)
    assert checked.returncode == 0, checked.stderr
    assert "Ann Example (ann@example.com)" in checked.stdout
    assert checked.stdout.endswith("connection works\n")


def test_declining_in_the_browser_stores_nothing(emulator: Emulator, env: dict[str, str]) -> None:
    env["ANSWER"] = "&deny=1"
    done = run("login", "--app-key", emulator.pkce_app_key, "--port", str(_free_port(emulator)), env=env)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "fs-dropbox: the request was declined in the browser: nothing was stored"
    assert not Path(env["XDG_CONFIG_HOME"]).exists()


def test_a_taken_port_is_said_before_anything_is_asked(emulator: Emulator, env: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        done = run("login", "--app-key", emulator.pkce_app_key, "--port", port, env=env)
    assert done.returncode == 1
    assert f"port {port} on 127.0.0.1 cannot be used" in done.stderr
    assert "https://" not in done.stderr


# The walk by pasting


def test_a_pasted_code_logs_in(emulator: Emulator, env: dict[str, str]) -> None:
    code, output, _ = _paste(emulator, env, "--app-key", emulator.pkce_app_key, "--name", "Work")
    assert code == 0
    assert output.startswith("Connected as Ann Example")
    assert list(_stored(env)) == ["Work"]


def test_print_shows_what_opens_the_account_and_stores_nothing(emulator: Emulator, env: dict[str, str]) -> None:
    code, output, said = _paste(emulator, env, "--app-key", emulator.pkce_app_key, "--print")
    assert code == 0
    assert "keep it secret" in said
    rows = dict(line.split(":", 1) for line in output.splitlines())
    assert rows["SFTP user"].strip() == f"{emulator.pkce_app_key}~"
    url = rows["FS URL"].strip()
    assert rows["SFTP password"].strip() in url
    with fs.open_fs(f"{url}?api_host={emulator.host}&ca_certs={emulator.ca_file}&change_feed=off") as opened:
        assert opened.listdir("/") == []
    assert not Path(env["XDG_CONFIG_HOME"]).exists()


def test_secrets_are_neither_stored_readably_nor_shown(emulator: Emulator, env: dict[str, str]) -> None:
    env["DROPBOX_APP_SECRET"] = emulator.app_secret
    _, output, said = _paste(emulator, env, "--app-key", emulator.app_key)
    url = _stored(env)["Dropbox (Ann Example)"]["url"]
    token = url.rpartition(":")[2].partition("@")[0]
    listed = run("connections", "list", env=env)
    for text in (output, said, listed.stdout, listed.stderr, run("check", "-c", "Dropbox", env=env).stdout):
        assert token not in text
        assert emulator.app_secret not in text


def test_logging_in_again_replaces_and_another_app_does_not(emulator: Emulator, env: dict[str, str]) -> None:
    for _ in range(2):
        _paste(emulator, env, "--app-key", emulator.pkce_app_key)
    assert list(_stored(env)) == ["Dropbox (Ann Example)"]
    _paste(emulator, env, "--app-key", emulator.control.add_app("Other")["app_key"])
    assert list(_stored(env)) == ["Dropbox (Ann Example)", "Dropbox (Ann Example, ann@example.com)"]


def test_missing_permissions_are_named_with_where_to_enable_them(emulator: Emulator, env: dict[str, str]) -> None:
    scopes = ["account_info.read", "files.metadata.read", "files.content.read"]
    key = emulator.control.add_app("Reader", scopes=scopes)["app_key"]
    code, _, said = _paste(emulator, env, "--app-key", key)
    assert code == 3
    last = said.splitlines()[-1]
    assert "files.content.write (to upload, move, copy and remove)" in last
    assert "files.content.read" not in last
    assert "Permissions tab" in last
    assert not Path(env["XDG_CONFIG_HOME"]).exists()
    code, _, said = _paste(emulator, env, "--app-key", key, "--read-only")
    assert code == 0, said


def test_read_only_asks_for_no_more(emulator: Emulator, env: dict[str, str]) -> None:
    code, _, said = _paste(emulator, env, "--app-key", emulator.pkce_app_key, "--read-only")
    assert code == 0, said
    grants = emulator.service.accounts.grants.values()
    newest = [grant for grant in grants if grant.app_key == emulator.pkce_app_key][-1]
    assert sorted(newest.scopes) == ["account_info.read", "files.content.read", "files.metadata.read"]


def test_a_team_app_acts_as_the_member_that_is_named(emulator: Emulator, env: dict[str, str]) -> None:
    emulator.control.add_team("Example Ltd")
    emulator.control.add_member("boss@example.com", "Boss", admin=True)
    emulator.control.add_member("ben@example.com", "Ben")
    key = emulator.control.add_app("Team App", is_team=True)["app_key"]
    answer = "approve=1&account=boss@example.com"
    code, _, said = _paste(emulator, env, "--app-key", key, answer=answer)
    assert code == 3
    assert "--member EMAIL" in said.splitlines()[-1]
    code, output, said = _paste(emulator, env, "--app-key", key, "--member", "ben@example.com", answer=answer)
    assert (code, "(ben@example.com)" in output) == (0, True), said
    assert run("ls", env=env).returncode == 0
    code, _, said = _paste(emulator, env, "--app-key", key, "--member", "nobody@example.com", answer=answer)
    assert (code, "nobody@example.com" in said or "member" in said.splitlines()[-1]) == (3, True)


# Wrong input


def _refused(env: dict[str, str], *arguments: str, stdin: str = "") -> str:
    done = run("login", *arguments, env=env, stdin=stdin)
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    assert not Path(env["XDG_CONFIG_HOME"]).exists()
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--root", "nope", "must be auto, home, or the number of a namespace, not 'nope'"),
        ("--root", "", "must be auto, home, or the number of a namespace, not ''"),
        ("--member", "ben", "must be an e-mail address, or the id of a team member (dbmid:…), not 'ben'"),
        ("--name", "a:b", "'a:b' cannot name a connection: no colon, no slash, no control characters"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anybody_consents(
    emulator: Emulator, env: dict[str, str], option: str, value: str, told: str
) -> None:
    done = run("login", "--no-browser", "--app-key", emulator.pkce_app_key, option, value, env=env)
    assert done.returncode == 2
    assert done.stderr == f"fs-dropbox: Invalid value for '{option}': {told} (see fs-dropbox login --help)\n"
    assert not emulator.control.calls()


def test_where_nothing_can_be_stored_nobody_consents(emulator: Emulator, env: dict[str, str]) -> None:
    path = Path(env["XDG_CONFIG_HOME"]) / "fs-dropbox" / "connections.json"
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    path.chmod(0o644)
    done = run("login", "--no-browser", "--app-key", emulator.pkce_app_key, env=env)
    assert done.returncode == 1
    assert done.stderr == f"fs-dropbox: {path} holds secrets and others may read it: run chmod 600 '{path}'\n"


def test_where_nothing_can_be_written_nobody_consents(emulator: Emulator, env: dict[str, str]) -> None:
    env["XDG_CONFIG_HOME"] = "/proc/config"  # nobody makes anything there
    done = run("login", "--no-browser", "--app-key", emulator.pkce_app_key, env=env)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "fs-dropbox: /proc/config/fs-dropbox/connections.json cannot be written: No such file or directory "
        "(XDG_CONFIG_HOME names another folder to keep it in)\n"
    )
    assert not emulator.control.calls()


def test_swapped_key_and_secret_are_recognised(emulator: Emulator, env: dict[str, str]) -> None:
    env["DROPBOX_APP_SECRET"] = emulator.app_key
    assert "swapped" in _refused(env, "--app-key", emulator.app_secret)
    env["DROPBOX_APP_SECRET"] = "wrongwrongwrong"
    last = _refused(env, "--app-key", emulator.app_key)
    assert "does not know an app with this key and secret" in last
    assert "wrongwrong" not in last


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("sl.abcdef", "this is an access token, not the app key"),
        ("key~secret", "the part before the ~"),
        ("ann@example.com", "an e-mail address, not the app key"),
        ("with space", "letters and digits only"),
        ("x" * 64, "too long for an app key"),
    ],
)
def test_what_is_no_app_key_is_explained(env: dict[str, str], given: str, told: str) -> None:
    assert told in _refused(env, "--app-key", given)


def test_an_unknown_key_is_refused_when_the_code_is_exchanged(emulator: Emulator, env: dict[str, str]) -> None:
    last = _refused(env, "--no-browser", "--app-key", "unknownkey12345", stdin="x" * 43)
    assert "does not know this app key" in last


@pytest.mark.parametrize(
    ("pasted", "told"),
    [
        ("sl.u.AbCdEf", "expires in four hours"),
        ("KEY", "the app's key or secret"),
        ("two words", "copy what the consent page shows"),
        ("http://localhost:53682/?state=x", "holds no code"),
        ("http://localhost:53682/?state=x&code=y", "belongs to another login"),
        ("x" * 43, "each code works once"),
    ],
)
def test_what_is_no_code_is_explained(emulator: Emulator, env: dict[str, str], pasted: str, told: str) -> None:
    key = emulator.pkce_app_key
    pasted = pasted.replace("KEY", key)
    last = _refused(env, "--no-browser", "--app-key", key, stdin=pasted)
    assert told in last
    assert pasted not in last or "http" in pasted


def test_a_used_or_expired_code_is_explained(emulator: Emulator, env: dict[str, str]) -> None:
    emulator.control.options(authorization_code_seconds=-1.0)
    code, _, said = _paste(emulator, env, "--app-key", emulator.pkce_app_key)
    assert code == 3
    assert "each code works once and for some minutes only" in said


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("code", "looks like an authorization code, not a refresh token"),
        ("access token", "begins with sl."),
        ("revoked", "was revoked"),
        ("key", "the app's key or secret"),
    ],
)
def test_what_is_no_refresh_token_is_explained(emulator: Emulator, env: dict[str, str], kind: str, told: str) -> None:
    env["DROPBOX_APP_SECRET"] = emulator.app_secret
    given = {
        "code": "x" * 43,
        "access token": emulator.access_token(),
        "revoked": emulator.refresh_token,
        "key": emulator.app_key,
    }[kind]
    if kind == "revoked":
        emulator.control.revoke_tokens()
    last = _refused(env | {"DROPBOX_REFRESH_TOKEN": given}, "--app-key", emulator.app_key, "--token")
    assert told in last
    assert given not in last


def test_a_refresh_token_that_exists_is_taken_over(emulator: Emulator, env: dict[str, str]) -> None:
    env["DROPBOX_REFRESH_TOKEN"] = emulator.pkce_refresh_token
    done = run("login", "--app-key", emulator.pkce_app_key, "--token", env=env)
    assert done.returncode == 0, done.stderr
    assert emulator.pkce_refresh_token in _stored(env)["Dropbox (Ann Example)"]["url"]


def test_dropbox_out_of_reach_is_said(emulator: Emulator, env: dict[str, str]) -> None:
    port = _free_port(emulator)
    env |= {"DROPBOX_API_HOST": f"127.0.0.1:{port}", "DROPBOX_APP_SECRET": emulator.app_secret}
    done = run("login", "--app-key", emulator.app_key, "--no-browser", env=env)
    assert done.returncode == 5
    assert done.stderr.count("\n") == 1
    assert "cannot be reached" in done.stderr


# Parts


def test_pkce_sends_a_challenge_and_a_secret_does_not() -> None:
    with Login("key") as pkce, Login("key", "secret") as confidential:
        query = parse_qs(urlsplit(pkce.consent_url("http://localhost:1/")).query)
        digest = hashlib.sha256(str(pkce._verifier).encode()).digest()
        assert query["code_challenge"] == [base64.urlsafe_b64encode(digest).rstrip(b"=").decode()]
        assert query["code_challenge_method"] == ["S256"]
        assert query["token_access_type"] == ["offline"]
        assert query["state"] == [pkce.state]
        assert "secret" not in confidential.consent_url()
        assert "code_challenge" not in parse_qs(urlsplit(confidential.consent_url()).query)
        assert pkce.state != confidential.state


def test_the_address_that_dropbox_sent_the_browser_to_can_be_pasted() -> None:
    with Login("key") as walk:
        assert logins.code_in(f" http://localhost:53682/?code=CODE&state={walk.state}\n", walk) == "CODE"
        with pytest.raises(LoginError, match="another login"):
            logins.code_in("http://localhost:53682/?code=CODE&state=other", walk)


def test_the_url_says_what_the_opener_reads() -> None:
    credentials = Credentials(app_key="key", app_secret="secret", refresh_token="a/b:c@d%", member="ben@example.com")
    url = logins.fs_url(credentials, root="home")
    assert url == "dropbox://key~secret~ben%40example.com:a%2Fb%3Ac%40d%25@/?root=home"


def test_the_consent_page_is_where_the_sdk_variables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DROPBOX_WEB_HOST", "DROPBOX_WEB_DOMAIN", "DROPBOX_DOMAIN"):
        monkeypatch.delenv(name, raising=False)
    with Login("key") as walk:
        assert walk.consent_url().startswith("https://www.dropbox.com/oauth2/authorize?")
        monkeypatch.setenv("DROPBOX_DOMAIN", ".example.org")
        assert walk.consent_url().startswith("https://www.example.org/")
        monkeypatch.setenv("DROPBOX_WEB_HOST", "127.0.0.1:9443")
        assert walk.consent_url().startswith("https://127.0.0.1:9443/")
