"""Whose account it is, and which root; and what each route's method promises."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import pytest

from fs_dropbox.api import routes
from fs_dropbox.api.auth import Credentials
from fs_dropbox.api.client import Client, Commit, Update
from fs_dropbox.emulator import Emulator
from fs_dropbox.entries import FileEntry
from fs_dropbox.errors import ApiError, AuthError, TransportError, to_fs_error

BOB = "bob@example.com"


# Whose account -------------------------------------------------------------------


def test_the_account(client: Client) -> None:
    account = client.account()
    assert (account.email, account.name, account.is_team) == ("ann@example.com", "Ann Example", False)
    assert account.root_namespace_id == account.home_namespace_id


def test_the_account_is_asked_for_once(emulator: Emulator, client: Client) -> None:
    for _ in range(3):
        client.account()
        client.list_folder("")
    assert emulator.control.calls()["users/get_current_account"] == 1


def test_home_needs_no_account(emulator: Emulator, make_client: Callable[..., Client]) -> None:
    make_client(root="home").list_folder("")
    assert emulator.control.calls() == {"oauth2/token": 1, "files/list_folder": 1}


def test_a_token_signs_in_under_its_own_address_only(emulator: Emulator, make_client: Callable[..., Client]) -> None:
    token = emulator.access_token()
    assert make_client(access_token=token, email="ANN@example.com").account().email == "ann@example.com"
    for root in ("auto", "home"):
        stranger = make_client(access_token=token, email=BOB, root=root)
        for call in (stranger.account, lambda stranger=stranger: stranger.list_folder("")):
            with pytest.raises(AuthError) as caught:
                call()
            assert caught.value.tag == ("wrong_account",)


def test_pkce_needs_no_secret(emulator: Emulator, make_client: Callable[..., Client]) -> None:
    client = make_client(app_key=emulator.pkce_app_key, refresh_token=emulator.pkce_refresh_token)
    assert client.account().email == "ann@example.com"


@pytest.mark.parametrize(
    ("changes", "tag"), [({"app_secret": "wrong"}, "invalid_client"), ({"refresh_token": "no"}, "invalid_access_token")]
)
def test_wrong_credentials(
    emulator: Emulator, make_client: Callable[..., Client], changes: dict[str, str], tag: str
) -> None:
    right = {"app_key": emulator.app_key, "app_secret": emulator.app_secret, "refresh_token": emulator.refresh_token}
    with pytest.raises(AuthError) as caught:
        make_client(**(right | changes)).account()
    assert caught.value.tag == (tag,)


# Teams and roots -----------------------------------------------------------------


@pytest.fixture
def team(emulator: Emulator) -> Emulator:
    """Ann and Bob in a team space, with a team folder."""
    emulator.control.add_team("Acme")
    emulator.control.add_member("ann@example.com", admin=True)
    emulator.control.add_member(BOB, "Bob")
    emulator.control.add_team_folder("Plans")
    return emulator


def names(client: Client) -> set[str]:
    return {entry.name for entry in client.list_folder("").entries}


def test_auto_shows_the_team_space_and_home_the_members_own(team: Emulator, make_client: Callable[..., Client]) -> None:
    client = make_client()
    account = client.account()
    assert account.is_team
    assert account.root_namespace_id != account.home_namespace_id
    assert "Plans" in names(client)
    assert names(make_client(root="home")) == set()
    assert names(make_client(root=account.root_namespace_id)) == names(client)
    assert names(make_client(root=account.home_namespace_id)) == set()


def test_a_member_by_address(team: Emulator, make_client: Callable[..., Client]) -> None:
    app = team.control.add_app("Team App", is_team=True)
    grant = team.control.sign_in(BOB, app=app["app_key"])
    signed_in = {key: grant[key] for key in ("app_key", "app_secret", "refresh_token")}
    client = make_client(**signed_in, member=BOB)
    assert client.account().email == BOB
    client.upload(Commit("/Bob/mine", "add"), b"x")
    assert team.control.exists("/Bob/mine", account=BOB)
    assert names(make_client(**signed_in, member="ann@example.com", root="home")) == set()
    with pytest.raises(AuthError) as caught:
        make_client(**signed_in, member="nobody@example.com").account()
    assert caught.value.tag == ("member_not_found",)


def test_a_root_that_changes_is_followed(emulator: Emulator, make_client: Callable[..., Client]) -> None:
    client = make_client()
    emulator.control.add_team("Acme")
    emulator.control.add_member("ann@example.com", admin=True)
    assert client.account().is_team
    client.list_folder("")
    info = emulator.control.account("ann@example.com")["root_info"]
    stale = make_client()
    emulator.control.fault(
        "files/list_folder",
        "error",
        status=422,
        error={
            ".tag": "invalid_root",
            "invalid_root": {**info, ".tag": "team", "root_namespace_id": info["root_namespace_id"]},
        },
    )
    emulator.control.reset_counts()
    assert names(stale) == names(client)
    assert emulator.control.calls()["files/list_folder"] == 3  # refused, again, and the other client's


@pytest.mark.parametrize(
    "change",
    [
        lambda client: client.delete("/Sales"),
        lambda client: client.move("/Sales/report", "/Sales/moved"),
        lambda client: client.create_folder("/Sales/new"),
        lambda client: client.upload(Commit("/Sales/report", "overwrite"), b"for the team"),
    ],
)
def test_a_change_is_not_made_in_a_root_that_it_was_not_meant_for(
    emulator: Emulator, client: Client, change: Callable[[Client], object]
) -> None:
    emulator.control.add_team("Acme")
    emulator.control.add_member("ann@example.com", admin=True)
    emulator.control.add_team_folder("Sales")
    emulator.control.write("/Sales/report", b"of the team")
    emulator.control.write("/Ann/Sales/report", b"my own")
    assert client.get_metadata("/Sales/report")
    emulator.control.remove_member("ann@example.com")
    own = emulator.control.tree()
    assert own == {"/Sales": None, "/Sales/report": len(b"my own")}
    with pytest.raises(ApiError) as caught:
        change(client)
    assert to_fs_error(caught.value, "/Sales").reason == (  # type: ignore[attr-defined]
        "the account has another root folder now, where this path means something else; nothing was changed there"
    )
    assert emulator.control.tree() == own
    change(client)  # whoever asks again asks for what is at these paths now
    assert emulator.control.tree() != own


def test_a_root_that_was_chosen_is_not_left(emulator: Emulator, make_client: Callable[..., Client]) -> None:
    with pytest.raises(ApiError) as caught:
        make_client(root="123").list_folder("")
    assert caught.value.status == 422


def test_a_root_that_makes_no_sense(make_client: Callable[..., Client]) -> None:
    with pytest.raises(ValueError, match="'elsewhere'"):
        make_client(root="elsewhere")


# Routes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["\u00fcml\u00e4ut.txt", "a\x01b", "\u2028", "\U0001f600", "%41 +&=#?", '"quoted"', "n\u200bl"]
)
def test_every_name_travels(client: Client, name: str) -> None:
    entry = client.upload(Commit(f"/{name}", "add"), name.encode())
    assert entry.name == name
    assert client.download(f"/{name}", 0, 100) == name.encode()
    assert [each.name for each in client.list_folder("").entries] == [name]


def test_ranges(client: Client) -> None:
    data = bytes(range(256)) * 40
    entry = client.upload(Commit("/file", "add"), data)
    for start, end in ((0, 1), (0, len(data)), (0, len(data) + 5), (100, 228), (len(data) - 1, len(data) + 9)):
        assert client.download(f"rev:{entry.rev}", start, end) == data[start:end]
    client.upload(Commit("/file", "overwrite"), b"other")
    assert client.download(f"rev:{entry.rev}", 0, 10) == data[:10]


def test_client_modified_travels_in_whole_seconds(client: Client) -> None:
    moment = datetime(2020, 2, 3, 4, 5, 6, 789, tzinfo=UTC)
    entry = client.upload(Commit("/file", "add", client_modified=moment), b"x")
    assert entry.client_modified == moment.replace(microsecond=0)


def test_commit_modes(client: Client) -> None:
    first = client.upload(Commit("/file", "add"), b"1")
    assert client.upload(Commit("/file", "add"), b"1").rev == first.rev
    for commit in (Commit("/file", "add"), Commit("/file", "add", strict_conflict=True)):
        with pytest.raises(ApiError, match="path/conflict/file"):
            client.upload(commit, b"2" if not commit.strict_conflict else b"1")
    second = client.upload(Commit("/file", Update(first.rev)), b"2")
    assert second.rev != first.rev
    with pytest.raises(ApiError, match="path/conflict/file"):
        client.upload(Commit("/file", Update(first.rev)), b"3")


def test_pages(emulator: Emulator, client: Client) -> None:
    for number in range(7):
        emulator.control.seed(f"/{number}", b"")
    page = client.list_folder("", limit=3)
    entries = list(page.entries)
    while page.has_more:
        page = client.list_folder_continue(page.cursor)
        entries += page.entries
    assert sorted(entry.name for entry in entries) == [str(number) for number in range(7)]
    assert client.list_folder_continue(page.cursor).entries == []


def test_revisions_and_restore(emulator: Emulator, client: Client) -> None:
    revs = [client.upload(Commit("/file", "overwrite"), str(number).encode()).rev for number in range(12)]
    assert [entry.rev for entry in client.list_revisions("/file")] == revs[::-1]
    assert [entry.rev for entry in client.list_revisions("/file", limit=5)] == revs[:-6:-1]
    client.delete("/file")
    assert client.restore("/file", revs[3]).size == 1
    assert emulator.control.read("/file") == b"3"


def test_revisions_end_where_a_stand_in_tells_the_same_again_and_again(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = (client.upload(Commit("/file", "overwrite"), content) for content in (b"old", b"new"))
    monkeypatch.setattr(client, "_call", lambda *_: ([new, old], True))
    assert [*islice(client.revisions("/file"), 100)] == [new, old] * 2


def test_links(client: Client) -> None:
    client.upload(Commit("/file", "add"), b"x")
    link = client.sharing.shared_link("/file")
    assert link.startswith("https://")
    assert client.sharing.shared_link("/file") == link
    assert client.sharing.temporary_link("/file").startswith("https://")
    with pytest.raises(ApiError, match="not_found"):
        client.sharing.temporary_link("/nothing")


def test_a_shared_link_that_dropbox_does_not_tell(client: Client, emulator: Emulator) -> None:
    """It knows of one, but lists none: somebody else's, or one that was revoked in between."""
    client.upload(Commit("/file", "add"), b"data")
    client.sharing.shared_link("/file")
    call = client._caller.call

    def listed(route: Any, argument: Any, *, decode: Callable[[Any], Any], **options: Any) -> Any:
        if route is routes.LIST_SHARED_LINKS:
            return decode({"links": [], "has_more": False})
        return call(route, argument, decode=decode, **options)

    client._caller.call = listed
    with pytest.raises(ApiError, match="shared_link_already_exists"):
        client.sharing.shared_link("/file")


def test_export(emulator: Emulator, client: Client) -> None:
    emulator.control.make_paper("/doc.paper", "# Title\n")
    entry = client.get_metadata("/doc.paper")
    assert isinstance(entry, FileEntry)
    assert not entry.is_downloadable
    with pytest.raises(ApiError, match="unsupported_file"):
        client.download("/doc.paper", 0, 1)
    entry = client.get_metadata("/doc.paper")
    assert isinstance(entry, FileEntry)
    assert b"Title" in client.export(entry, "markdown")


def test_space_of_an_account_and_of_a_team(emulator: Emulator, client: Client) -> None:
    client.upload(Commit("/file", "add"), b"12345")
    emulator.control.set_quota(1000)
    space = client.space_usage()
    assert (space.used, space.allocated) == (5, 1000)
    with pytest.raises(ApiError, match="insufficient_space"):
        client.upload(Commit("/big", "add"), bytes(2000))


def test_append_batch_and_finish_batch(emulator: Emulator, client: Client) -> None:
    emulator.control.seed("/taken")
    contents = [b"", b"one", b"two" * 1000, b"x"]
    sessions = client.session_start_batch(4)
    assert client.session_append_batch(list(zip(sessions, contents, strict=True))) == [None] * 4
    paths = ["/empty", "/one", "/two", "/taken"]
    outcomes = client.session_finish_batch(
        [
            (session, len(data), Commit(path, "add"))
            for session, data, path in zip(sessions, contents, paths, strict=True)
        ]
    )
    assert [outcome.size for outcome in outcomes if isinstance(outcome, FileEntry)] == [0, 3, 3000]
    assert isinstance(outcomes[3], ApiError)
    assert outcomes[3].tag == ("path", "conflict", "folder")
    assert outcomes[3].path == "/taken"
    assert emulator.control.read("/two") == contents[2]


def test_nothing_is_sent_before_the_first_call(emulator: Emulator) -> None:
    client = Client(Credentials(access_token="x"), api_host=emulator.host, ca_certs=str(emulator.ca_file))
    client.close()
    assert not emulator.control.calls()


@pytest.mark.parametrize("decode", [lambda result: result["none"], lambda result: [][0], lambda result: result.none])
def test_an_answer_without_what_it_should_have_is_none(client: Client, decode: Callable[[Any], Any]) -> None:
    with pytest.raises(TransportError) as caught:
        client._caller.call(routes.SPACE_USAGE, None, decode=decode)
    assert (caught.value.kind, caught.value.route) == ("protocol", routes.SPACE_USAGE.name)
