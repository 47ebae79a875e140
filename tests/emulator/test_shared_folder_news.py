"""What cursors tell of shared folders, and to whom."""

from __future__ import annotations

import threading
from typing import Any

from fs_dropbox.emulator import Emulator
from tests.waiting import eventually

from .people import BOB, add_member, invited, share
from .raw_api import Api, bare, error_of


def test_cursors_report_what_others_do(api: Api, bob: Api) -> None:
    api.put("/Shared/a.txt", b"1")
    cursor = bob.ok(bob.rpc("files/list_folder/get_latest_cursor", {"path": "", "recursive": True}))["cursor"]
    folder = invited(api, bob)
    news, cursor = bob.news(cursor)
    assert [entry["path_lower"] for entry in news] == ["/shared", "/shared/a.txt"]
    api.put("/Shared/b.txt", b"1")
    news, cursor = bob.news(cursor)
    assert [entry["path_lower"] for entry in news] == ["/shared/b.txt"]
    bob.ok(bob.rpc("files/move_v2", {"from_path": "/Shared", "to_path": "/Elsewhere"}))
    news, cursor = bob.news(cursor)
    assert [(entry[".tag"], entry["path_lower"]) for entry in news] == [
        ("deleted", "/shared"),
        ("folder", "/elsewhere"),
        ("file", "/elsewhere/a.txt"),
        ("file", "/elsewhere/b.txt"),
    ]
    bob.ok(bob.rpc("sharing/unmount_folder", {"shared_folder_id": folder}))
    news, _ = bob.news(cursor)
    assert [(entry[".tag"], entry["path_lower"]) for entry in news] == [("deleted", "/elsewhere")]


def test_sharing_shows_as_delete_and_add(api: Api) -> None:
    api.put("/Shared/a.txt", b"1")
    cursor = api.ok(api.rpc("files/list_folder/get_latest_cursor", {"path": "", "recursive": True}))["cursor"]
    share(api, "/Shared")
    news, _ = api.news(cursor)
    assert [(entry[".tag"], entry["path_lower"]) for entry in news[:1]] == [("deleted", "/shared")]
    state: dict[str, str] = {"/shared": "folder", "/shared/a.txt": "file"}
    for entry in news:  # as a client applies them
        if entry[".tag"] == "deleted":
            state = {p: t for p, t in state.items() if not (p + "/").startswith(entry["path_lower"] + "/")}
        else:
            state[entry["path_lower"]] = entry[".tag"]
    assert state == {"/shared": "folder", "/shared/a.txt": "file"}
    assert [e["path_lower"] for e in news if e.get("sharing_info")] == ["/shared/a.txt", "/shared"]


def test_who_changed_a_file_last_is_told(api: Api, bob: Api) -> None:
    ann_id, bob_id = (one.ok(one.rpc("users/get_current_account"))["account_id"] for one in (api, bob))
    invited(api, bob)

    def author() -> str:
        shown = api.ok(api.rpc("files/get_metadata", {"path": "/Shared/a"}))
        return str(shown["sharing_info"]["modified_by"])

    old = bob.put("/Shared/a", b"1")
    api.put("/Shared/a", b"1")
    assert author() == bob_id, "equal content changes nothing"
    api.put("/Shared/a", b"2", "overwrite")
    assert author() == ann_id
    bob.ok(bob.rpc("files/restore", {"path": "/Shared/a", "rev": old["rev"]}))
    assert author() == bob_id
    session = api.ok(api.upload("files/upload_session/start", {"close": True}, b"3"))["session_id"]
    cursor = {"session_id": session, "offset": 1}
    entry = {"cursor": cursor, "commit": {"path": "/Shared/a", "mode": "overwrite"}}
    api.ok(api.rpc("files/upload_session/finish_batch_v2", {"entries": [entry]}))
    assert author() == ann_id


def test_a_longpoll_hears_of_others_in_a_shared_folder(api: Api, bob: Api) -> None:
    invited(api, bob)
    cursor = bob.ok(bob.rpc("files/list_folder/get_latest_cursor", {"path": "", "recursive": True}))["cursor"]
    answers: list[Any] = []
    waiting = threading.Thread(
        target=lambda: answers.append(bob.rpc("files/list_folder/longpoll", {"cursor": cursor, "timeout": 30}).json())
    )
    waiting.start()
    eventually(lambda: api.emulator.control.peak_concurrency("files/list_folder/longpoll"))
    api.put("/Shared/new", b"1")
    waiting.join(timeout=20)
    assert answers == [{"changes": True}]


def test_an_unmounted_folder_is_listed_by_its_namespace(api: Api, bob: Api) -> None:
    api.put("/Shared/sub/a", b"1")
    folder = share(api, "/Shared")["shared_folder_id"]
    assert bare(error_of(bob.rpc("files/list_folder", {"path": f"ns:{folder}"}))) == "path/not_found"
    add_member(api, folder, BOB)
    page = bob.ok(bob.rpc("files/list_folder", {"path": f"ns:{folder}", "recursive": True}))
    assert [entry["name"] for entry in page["entries"]] == ["sub", "a"]
    api.put("/Shared/b", b"1")
    news, cursor = bob.news(page["cursor"])
    assert [entry["name"] for entry in news] == ["b"]
    member = {"shared_folder_id": folder, "member": {".tag": "email", "email": BOB}, "leave_a_copy": False}
    api.ok(api.rpc("sharing/remove_folder_member", member))
    api.put("/Shared/secret", b"1")
    assert bob.ok(bob.rpc("files/list_folder/longpoll", {"cursor": cursor})) == {"changes": True}
    gone = bob.rpc("files/list_folder/continue", {"cursor": cursor})
    assert bare(error_of(gone)) == "path/not_found"


def test_a_cursor_is_of_use_to_its_account_alone(api: Api, bob: Api) -> None:
    invited(api, bob)
    cursor = api.ok(api.rpc("files/list_folder/get_latest_cursor", {"path": "/Shared"}))["cursor"]
    assert bob.rpc("files/list_folder/continue", {"cursor": cursor}).status_code == 400


def test_cursors_tell_who_becomes_a_reader(emulator: Emulator, api: Api, bob: Api) -> None:
    folder = invited(api, bob)
    cursor = bob.ok(bob.rpc("files/list_folder/get_latest_cursor", {"path": "", "recursive": True}))["cursor"]
    emulator.control.set_access(folder, BOB, "viewer")
    news, cursor = bob.news(cursor)
    assert [(entry["path_lower"], entry["sharing_info"]["read_only"]) for entry in news] == [("/shared", True)]
    emulator.control.set_access(folder, BOB, None)
    assert [(entry[".tag"], entry["path_lower"]) for entry in bob.news(cursor)[0]] == [("deleted", "/shared")]
