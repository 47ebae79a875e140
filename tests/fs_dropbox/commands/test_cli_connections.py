"""Connections on the command line, the locations that name them, check."""

from __future__ import annotations

import json

import pytest

from fs_dropbox.emulator import Emulator
from fs_dropbox.login.connections import Connection, Connections
from tests.fs_dropbox.commands.command_line import Cli, run


def test_connections(env: dict[str, str], store: Connections) -> None:
    store.put(Connection("Work", "mem://"))
    assert (
        run("connections", "list", env=env).stdout
        == "   Dropbox (Ann Example)  ann@example.com\n*  Work                   -\n"
    )
    assert run("connections", "use", "drop", env=env).stdout == "the default is 'Dropbox (Ann Example)'\n"
    assert run("connections", "rename", "drop", "Ann", env=env).returncode == 0
    rows = json.loads(run("connections", "list", "--json", env=env).stdout)
    assert [(row["name"], row["default"]) for row in rows] == [("Ann", True), ("Work", False)]
    assert "url" not in rows[0]
    assert run("connections", "remove", "Wor", env=env).returncode == 2
    assert run("connections", "remove", "Work", env=env).returncode == 0
    assert [connection.name for connection in store.all()] == ["Ann"]


@pytest.fixture
def stored_folder(store: Connections, emulator: Emulator) -> str:
    """The URL of a folder of the Dropbox, which is also a stored connection: the last, and thereby the default."""
    emulator.control.write("/Docs/a.txt", b"alpha")
    folder = emulator.fs_url.partition("?")[0] + "Docs"
    store.put(Connection("Docs", folder))
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ("docs:/a.txt",),
        ("Docs:/x/../a.txt",),
        ("Drop:/Docs/a.txt",),
        ("-c", "Drop", "/Docs/a.txt"),
        ("/a.txt",),
        ("FOLDER/a.txt",),
    ],
    ids=" ".join,
)
def test_a_location_names_its_connection(env: dict[str, str], stored_folder: str, arguments: tuple[str, ...]) -> None:
    done = run("cat", *(argument.replace("FOLDER", stored_folder) for argument in arguments), env=env)
    assert done.stdout == "alpha", done.stderr


def test_a_location_does_not_lead_out_of_its_connection(env: dict[str, str], stored_folder: str) -> None:
    assert run("cat", "docs:/../Docs/a.txt", env=env).returncode != 0


def test_a_location_of_no_connection_is_a_mistake(env: dict[str, str], stored_folder: str) -> None:
    assert run("ls", "nothing:/", env=env).returncode == 2


def test_check(cli: Cli, emulator: Emulator) -> None:
    done = cli("check")
    assert done.code == 0, done.err
    for text in (
        "Ann Example (ann@example.com)",
        "of 2.0 TB used",
        "ms for a listing",
        "all there",
        "connection works",
    ):
        assert text in done.out
    result = json.loads(cli("check", "--json").out)
    assert (result["works"], result["missing_scopes"], result["email"]) == (True, [], "ann@example.com")


@pytest.mark.parametrize("status", [404, 400])
def test_check_does_without_what_a_stand_in_does_not_have(cli: Cli, emulator: Emulator, status: int) -> None:
    for route in ("users/get_space_usage", "sharing/list_shared_links"):
        emulator.control.fault(route, "server_error", None, status=status, text="Unknown API function")
    done = cli("check")
    assert done.code == 0, done.err
    assert "connection works" in done.out
    assert "used" not in done.out
    assert "not checked  sharing.read: what answers has no such calls (is it Dropbox?)" in done.out
    assert json.loads(cli("check", "--json").out)["unknown_scopes"] == ["sharing.read"]


@pytest.mark.parametrize("grants", [True, False], ids=["never granted", "not of the app"])
def test_check_names_missing_permissions(cli: Cli, emulator: Emulator, grants: bool) -> None:
    scopes = ["account_info.read", "files.metadata.read", "files.content.read"]
    emulator.control.set_scopes(scopes, grants=True)
    if grants:
        emulator.control.set_scopes([*scopes, "files.content.write", "sharing.read", "sharing.write"])
    done = cli("check")
    assert done.code == 3, done.out
    assert "files.content.write (to upload, move, copy and remove)" in done.err
    assert "Permissions tab" in done.err
    assert "connection works" not in done.out
    result = json.loads(cli("check", "--json").out)
    assert not result["works"]
    assert result["missing_scopes"] == ["files.content.write", "sharing.read", "sharing.write"]


def test_a_missing_permission_has_the_exit_code_of_credentials(cli: Cli, emulator: Emulator) -> None:
    emulator.control.set_scopes(["account_info.read", "files.metadata.read"], grants=True)
    done = cli("mkdir", "/new")
    assert done.code == 3, done
    assert "lacks the scope files.content.write" in done.err


def test_check_as_the_administrator_of_a_team(cli: Cli, monkeypatch: pytest.MonkeyPatch, emulator: Emulator) -> None:
    emulator.control.add_team("Acme")
    emulator.control.add_member("ann@example.com", admin=True)
    app = emulator.control.add_app("Team App", is_team=True)
    grant = emulator.control.sign_in(app=app["app_key"])
    url = emulator.fs_url_for(grant["app_key"], grant["app_secret"], grant["refresh_token"])
    monkeypatch.setenv("ACCOUNT", f"{url}&admin=ann%40example.com")
    done = cli("check")
    assert (done.code, "ann@example.com" in done.out) == (0, True), done
    monkeypatch.setenv("ACCOUNT", url)
    done = cli("check")
    assert done.code == 3
    assert "name the member to act as" in done.err


def test_check_looks_at_the_path_of_the_location(cli: Cli, emulator: Emulator) -> None:
    emulator.control.write("/Docs/a", b"a")
    assert cli("check", "/docs/.deleted").code == 0
    done = cli("check", "/dosc")
    assert (done.code, done.err) == (4, "fs-dropbox: there is no file or folder /dosc\n")


def test_check_changes_nothing(cli: Cli, emulator: Emulator) -> None:
    emulator.control.write("/a", b"a")
    assert cli("check").code == 0
    assert emulator.control.tree() == {"/a": 1}
