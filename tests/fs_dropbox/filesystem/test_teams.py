"""Teams: the team's space, acting for members and as administrator, errors that name who may not do what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fs.errors
import pytest
from fs import open_fs

from fs_dropbox import DropboxFS
from fs_dropbox.emulator import Emulator

ANN, BOB = "ann@example.com", "bob@example.com"


@pytest.fixture
def space(emulator: Emulator) -> Emulator:
    """Ann is the administrator, Bob a member, Plans a team folder, and each has a file at home."""
    control = emulator.control
    control.add_team("Acme")
    control.add_member(ANN, admin=True)
    control.add_member(BOB, "Bob")
    control.add_team_folder("Plans")
    control.write("/Plans/plan.txt", b"plan")
    control.write("/Ann/ann.txt", b"ann")
    control.write("/Bob/bob.txt", b"bob", account=BOB)
    return emulator


@pytest.fixture
def open_team(space: Emulator, open_dropbox: Callable[..., DropboxFS]) -> Callable[..., DropboxFS]:
    """Open with the token of a team's app; `scopes` are those of the app."""

    def open_team(scopes: list[str] | None = None, **arguments: Any) -> DropboxFS:
        app = space.control.add_app("Team App", scopes, is_team=True)
        grant = space.control.sign_in(app=app["app_key"])
        grant.pop("access_token")
        return open_dropbox(**grant, **arguments)

    return open_team


def home(emulator: Emulator, email: str) -> str:
    return str(emulator.control.account(email)["root_info"]["home_namespace_id"])


def test_the_space_of_the_team_is_the_root_by_itself(space: Emulator, open_dropbox: Callable[..., DropboxFS]) -> None:
    dropbox_fs = open_dropbox()
    assert sorted(dropbox_fs.listdir("/")) == ["Ann", "Plans"]
    assert dropbox_fs.readtext("/Plans/plan.txt") == "plan"
    dropbox_fs.writetext("/Plans/new.txt", "new")
    assert space.control.read("/Plans/new.txt") == b"new"
    assert dropbox_fs.getmeta("dropbox")["home_path"] == "/Ann"


def test_the_root_can_be_the_home_or_any_namespace(space: Emulator, open_dropbox: Callable[..., DropboxFS]) -> None:
    assert open_dropbox(root="home").listdir("/") == ["ann.txt"]
    plans = str(space.control.metadata("/Plans")["shared_folder_id"])
    rooted = open_dropbox(root=plans)
    assert rooted.listdir("/") == ["plan.txt"]
    rooted.writetext("/plan.txt", "changed")
    assert space.control.read("/Plans/plan.txt") == b"changed"


def test_a_namespace_that_is_not_ours_is_named(space: Emulator, open_dropbox: Callable[..., DropboxFS]) -> None:
    for namespace in (home(space, BOB), "123456789"):
        with pytest.raises(fs.errors.PermissionDenied) as caught:
            open_dropbox(root=namespace).listdir("/")
        assert f"{ANN} is not authorized to enter the namespace {namespace}" in str(caught.value)


def test_team_folders_are_visible_in_the_legacy_layout(
    emulator: Emulator, open_dropbox: Callable[..., DropboxFS]
) -> None:
    emulator.control.add_team("Old", team_space=False)
    emulator.control.add_member(ANN, admin=True)
    emulator.control.add_team_folder("Plans")
    emulator.control.write("/Plans/plan.txt", b"plan")
    dropbox_fs = open_dropbox()
    assert dropbox_fs.readtext("/Plans/plan.txt") == "plan"
    with pytest.raises(fs.errors.PermissionDenied, match="administrators"):
        dropbox_fs.removetree("/Plans")


def test_an_app_folder_in_a_team_space_is_its_own_root(space: Emulator, open_dropbox: Callable[..., DropboxFS]) -> None:
    space.control.set_app_folder()
    dropbox_fs = open_dropbox()
    assert dropbox_fs.listdir("/") == []
    dropbox_fs.writetext("/own.txt", "own")
    assert dropbox_fs.listdir("/") == ["own.txt"]
    assert dropbox_fs.readtext("/own.txt") == "own"


def test_acting_as_a_member(space: Emulator, open_team: Callable[..., DropboxFS]) -> None:
    by_email = open_team(member=BOB)
    assert sorted(by_email.listdir("/")) == ["Bob", "Plans"]
    assert by_email.readtext("/Bob/bob.txt") == "bob"
    by_email.writetext("/Plans/from bob.txt", "hello")
    assert (
        space.control.metadata("/Plans/from bob.txt")["sharing_info"]["modified_by"]
        == (space.control.account(BOB)["account_id"])
    )
    before = space.control.calls()["team/members/get_info"]
    by_id = open_team(member=space.control.account(BOB)["team_member_id"], root="home")
    assert by_id.listdir("/") == ["bob.txt"]
    assert space.control.calls()["team/members/get_info"] == before
    assert by_id.getmeta("dropbox")["email"] == BOB


def test_acting_as_the_administrator(space: Emulator, open_team: Callable[..., DropboxFS]) -> None:
    admin = open_team(admin=ANN)
    assert sorted(admin.listdir("/")) == ["Ann", "Bob", "Plans"]
    assert admin.readtext("/Plans/plan.txt") == "plan"
    of_bob = open_team(admin=ANN, root=home(space, BOB))
    assert of_bob.listdir("/") == ["bob.txt"]
    assert of_bob.readtext("/bob.txt") == "bob"
    with pytest.raises(fs.errors.CreateFailed, match=f"{BOB}"):
        open_team(admin=BOB)


def test_by_url(space: Emulator) -> None:
    app = space.control.add_app("Team App", is_team=True)
    grant = space.control.sign_in(app=app["app_key"])

    def url(user: str, query: str = "") -> str:
        who = f"{grant['app_key']}~{grant['app_secret']}{user}:{grant['refresh_token']}"
        return f"dropbox://{who}@/?api_host={space.host}&ca_certs={space.ca_file}{query}"

    member_id = space.control.account(BOB)["team_member_id"]
    for address in (url("~bob%40example.com"), url(f"~{member_id.replace(':', '%3A')}")):
        with open_fs(address) as dropbox_fs:
            assert dropbox_fs.readtext("/Bob/bob.txt") == "bob"
    with open_fs(url("", f"&admin=ann%40example.com&root={home(space, BOB)}")) as dropbox_fs:
        assert dropbox_fs.readtext("/bob.txt") == "bob"


def test_who_is_missing_is_named(space: Emulator, open_team: Callable[..., DropboxFS]) -> None:
    with pytest.raises(fs.errors.CreateFailed, match=r"^eve@example.com is not in the team"):
        open_team(member="eve@example.com")
    with pytest.raises(fs.errors.CreateFailed, match="the token may not act as dbmid:nobody"):
        open_team(member="dbmid:nobody")
    with pytest.raises(fs.errors.CreateFailed, match="the app is a team's: name the member to act as"):
        open_team()
    with pytest.raises(fs.errors.CreateFailed, match="not as both"):
        open_team(member=BOB, admin=ANN)
    space.control.suspend(BOB)
    with pytest.raises(fs.errors.CreateFailed, match="suspended"):
        open_team(member=BOB)


def test_a_missing_scope_is_named_with_the_member_and_what_it_is_for(
    space: Emulator, open_team: Callable[..., DropboxFS]
) -> None:
    needed = ["account_info.read", "members.read", "team_data.member", "files.metadata.read"]
    member = open_team([*needed, "files.content.read"], member=BOB)
    assert member.readtext("/Bob/bob.txt") == "bob"
    with pytest.raises(fs.errors.PermissionDenied) as caught:
        member.writetext("/Bob/new.txt", "new")
    assert str(caught.value).startswith("'/Bob/new.txt': bob@example.com is not authorized to write files:")
    assert "the app lacks the scope files.content.write" in str(caught.value)
    assert "App Console" in str(caught.value)
    with pytest.raises(
        fs.errors.PermissionDenied, match=r"not authorized to make shared links: .* scope sharing.write"
    ):
        member.geturl("/Bob/bob.txt", "share")
    with pytest.raises(fs.errors.CreateFailed, match=r"act for members of the team: the app lacks .* team_data.member"):
        open_team(["account_info.read", "members.read"], member=BOB)
    with pytest.raises(fs.errors.CreateFailed, match=r"look up members of the team: .* members.read"):
        open_team(["account_info.read", "team_data.member"], member=BOB)


def test_who_may_not_write_is_named(space: Emulator, open_team: Callable[..., DropboxFS]) -> None:
    space.control.add_team_folder("Rules", access={BOB: "viewer"})
    space.control.write("/Rules/rule.txt", b"rule")
    member = open_team(member=BOB)
    refusal = f"{BOB} is not authorized to write in this shared folder"
    changes: list[Callable[[], object]] = [
        lambda: member.writetext("/Rules/new.txt", "new"),
        lambda: member.remove("/Rules/rule.txt"),
        lambda: member.makedir("/Rules/new"),
        lambda: member.writetext("/top.txt", "new"),
    ]
    for change in changes:
        with pytest.raises(fs.errors.PermissionDenied, match=refusal):
            change()
    assert member.readtext("/Rules/rule.txt") == "rule"
    assert member.getinfo("/Rules", ["dropbox"]).get("dropbox", "sharing")["read_only"] is True


def test_a_feature_that_the_account_lacks_is_said_with_its_name(
    space: Emulator, open_team: Callable[..., DropboxFS]
) -> None:
    member = open_team(member=BOB)
    space.control.deny("data_transport", account=BOB)
    with pytest.raises(fs.errors.PermissionDenied, match=f"{BOB} is not authorized: Your team has reached"):
        member.writetext("/Bob/new.txt", "new")
