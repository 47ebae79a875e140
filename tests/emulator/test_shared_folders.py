"""Shared folders: sharing in place, members and readers, mounting."""

from __future__ import annotations

from typing import Any

import dropbox
from dropbox import sharing

from fs_dropbox.emulator import Emulator

from .people import BOB, add_member, api_of, invited, rooted, share
from .raw_api import Api, bare, error_of


def job_of(answer: dict[str, Any]) -> dict[str, str]:
    return {"async_job_id": answer["async_job_id"]}


def test_sharing_in_place(api: Api) -> None:
    before = api.put("/Office/Shared/a.txt", b"1")
    shared = share(api, "/office/shared")
    assert shared["access_type"] == {".tag": "owner"}
    assert (shared["name"], shared["path_lower"]) == ("Shared", "/office/shared")
    folder = api.ok(api.rpc("files/get_metadata", {"path": "/Office/Shared"}))
    assert folder["sharing_info"]["shared_folder_id"] == shared["shared_folder_id"]
    after = api.ok(api.rpc("files/get_metadata", {"path": "/Office/Shared/a.txt"}))
    assert after["id"] == before["id"]
    assert after["sharing_info"] == {"read_only": False, "parent_shared_folder_id": shared["shared_folder_id"]}
    by_namespace = api.ok(api.rpc("files/get_metadata", {"path": f"ns:{shared['shared_folder_id']}/a.txt"}))
    assert by_namespace["path_display"] == "/Office/Shared/a.txt"


def test_a_missing_folder_is_created(api: Api) -> None:
    assert share(api, "/New/Folder")["path_display"] == "/New/Folder"
    assert api.ok(api.rpc("files/get_metadata", {"path": "/New/Folder"}))[".tag"] == "folder"


def test_sharing_can_be_a_job(api: Api) -> None:
    job = api.ok(api.rpc("sharing/share_folder", {"path": "/x", "force_async": True}))
    assert job[".tag"] == "async_job_id"
    status = api.ok(api.rpc("sharing/check_share_job_status", {"async_job_id": job["async_job_id"]}))
    assert (status[".tag"], status["name"]) == ("complete", "x")


def test_what_cannot_be_shared(emulator: Emulator, api: Api) -> None:
    api.put("/file", b"1")
    api.put("/Outer/Inner/a", b"1")
    inner = share(api, "/Outer/Inner")
    app = emulator.control.add_app("Box", app_folder=True)
    api_of(api, app=app["app_key"]).put("/a", b"1")

    def refused(path: str) -> str:
        return bare(error_of(api.rpc("sharing/share_folder", {"path": path})))

    assert refused("/file") == "bad_path/is_file"
    assert refused("/Outer") == "bad_path/contains_shared_folder"
    assert refused("/Outer/Inner/Deeper") == "bad_path/inside_shared_folder"
    assert refused("/Apps/Box") == "bad_path/is_app_folder"
    assert refused("/Apps/Box/sub") == "bad_path/inside_app_folder"
    assert refused("/Apps") == "bad_path/contains_app_folder"
    assert refused("/a//b") == "bad_path/invalid_path"
    again = error_of(api.rpc("sharing/share_folder", {"path": "/Outer/Inner"}))
    assert again["bad_path"][".tag"] == "already_shared"
    assert again["bad_path"]["shared_folder_id"] == inner["shared_folder_id"]
    emulator.control.set_account(email_verified=False)
    assert refused("/Third") == "email_unverified"


def test_two_people_work_in_one_folder(api: Api, bob: Api) -> None:
    api.put("/Shared/a.txt", b"1")
    invited(api, bob)
    assert [entry["path_display"] for entry in bob.entries(recursive=True)] == ["/Shared", "/Shared/a.txt"]
    bob.put("/Shared/a.txt", b"2", "overwrite")
    seen = api.ok(api.rpc("files/get_metadata", {"path": "/Shared/a.txt"}))
    assert seen["sharing_info"]["modified_by"] == bob.ok(bob.rpc("users/get_current_account"))["account_id"]
    assert api.download("files/download", {"path": "/Shared/a.txt"}).content == b"2"
    bob.put("/mine", b"3")
    assert bare(error_of(api.rpc("files/get_metadata", {"path": "/mine"}))) == "path/not_found"


def test_a_move_to_another_owner_must_be_allowed(api: Api, bob: Api) -> None:
    invited(api, bob)
    bob.put("/mine", b"1")
    move = {"from_path": "/mine", "to_path": "/Shared/mine"}
    assert bare(error_of(bob.rpc("files/move_v2", move))) == "cant_transfer_ownership"
    api.emulator.control.set_quota(0)
    given = {**move, "allow_ownership_transfer": True}
    assert bare(error_of(bob.rpc("files/move_v2", given))) == "insufficient_quota"
    api.emulator.control.set_quota(10)
    assert bob.rpc("files/copy_v2", {**move, "to_path": "/Shared/copy"}).status_code == 200
    batch = {"entries": [move], "autorename": False}
    job = bob.ok(bob.rpc("files/move_batch_v2", batch))
    done = bob.ok(bob.rpc("files/move_batch/check_v2", job_of(job)))["entries"]
    assert bare(done[0]["failure"]) == "relocation_error/cant_transfer_ownership"
    job = bob.ok(bob.rpc("files/move_batch_v2", {**batch, "allow_ownership_transfer": True}))
    assert bob.ok(bob.rpc("files/move_batch/check_v2", job_of(job)))["entries"][0][".tag"] == "success"
    bob.put("/mine", b"2")
    given["to_path"] = "/Shared/mine too"
    assert bob.rpc("files/move_v2", given).status_code == 200


def test_readers_cannot_write(api: Api, bob: Api) -> None:
    api.put("/Shared/a.txt", b"1")
    invited(api, bob, "viewer")
    rev = api.put("/Shared/a.txt", b"2", "overwrite")["rev"]
    assert bob.ok(bob.rpc("files/get_metadata", {"path": "/Shared"}))["sharing_info"]["read_only"] is True
    refused = [
        (bob.upload("files/upload", {"path": "/Shared/b"}, b""), "path/no_write_permission"),
        (bob.upload("files/upload", {"path": "/Shared/a.txt", "mode": "overwrite"}, b"2"), "path/no_write_permission"),
        (bob.rpc("files/create_folder_v2", {"path": "/Shared/sub"}), "path/no_write_permission"),
        (bob.rpc("files/delete_v2", {"path": "/Shared/a.txt"}), "path_write/no_write_permission"),
        (bob.rpc("files/restore", {"path": "/Shared/a.txt", "rev": rev}), "path_write/no_write_permission"),
        (
            bob.rpc("files/move_v2", {"from_path": "/Shared/a.txt", "to_path": "/a.txt"}),
            "from_write/no_write_permission",
        ),
    ]
    for answer, error in refused:
        assert bare(error_of(answer)) == error
    assert bob.rpc("files/copy_v2", {"from_path": "/Shared/a.txt", "to_path": "/a.txt"}).status_code == 200


def test_mounting(api: Api, bob: Api) -> None:
    api.put("/Shared/a.txt", b"1")
    folder = share(api, "/Shared")["shared_folder_id"]
    get = ("sharing/get_folder_metadata", {"shared_folder_id": folder})
    assert bare(error_of(bob.rpc(*get))) == "not_a_member"
    add_member(api, folder, BOB)
    seen = bob.ok(bob.rpc(*get))
    assert seen["access_type"] == {".tag": "editor"}
    assert "path_lower" not in seen
    assert bob.entries() == []
    mountable = bob.ok(bob.rpc("sharing/list_mountable_folders", {}))["entries"]
    assert [entry["shared_folder_id"] for entry in mountable] == [folder]
    bob.put("/Shared", b"in the way")
    mounted = bob.ok(bob.rpc("sharing/mount_folder", {"shared_folder_id": folder}))
    assert mounted["path_display"] == "/Shared (1)"
    assert bare(error_of(bob.rpc("sharing/mount_folder", {"shared_folder_id": folder}))) == "already_mounted"
    assert bob.ok(bob.rpc("sharing/list_mountable_folders", {}))["entries"] == []
    bob.ok(bob.rpc("sharing/unmount_folder", {"shared_folder_id": folder}))
    gone = bob.rpc("sharing/unmount_folder", {"shared_folder_id": folder})
    assert bare(error_of(gone)) == "access_error/unmounted"
    assert bob.rpc("sharing/mount_folder", {"shared_folder_id": folder}).status_code == 200
    wrong = api.rpc("sharing/mount_folder", {"shared_folder_id": "1"})
    assert bare(error_of(wrong)) == "access_error/invalid_id"


def test_deleting_a_mounted_folder_unmounts_it(api: Api, bob: Api) -> None:
    api.put("/Shared/a.txt", b"1")
    folder = invited(api, bob)
    bob.ok(bob.rpc("files/delete_v2", {"path": "/Shared"}))
    assert bob.entries() == []
    assert api.download("files/download", {"path": "/Shared/a.txt"}).content == b"1"
    mountable = bob.ok(bob.rpc("sharing/list_mountable_folders", {}))["entries"]
    assert [entry["shared_folder_id"] for entry in mountable] == [folder]


def test_path_root_of_a_shared_folder(api: Api, bob: Api) -> None:
    api.put("/Shared/a.txt", b"1")
    folder = invited(api, bob)
    bob.headers = rooted("namespace_id", folder)
    assert [entry["path_display"] for entry in bob.entries()] == ["/a.txt"]
    bob.put("/b.txt", b"2")
    bob.headers = {}
    assert bob.ok(bob.rpc("files/get_metadata", {"path": "/Shared/b.txt"}))["size"] == 1


def test_unsharing(api: Api, bob: Api) -> None:
    first = api.put("/Shared/a.txt", b"1")
    folder = invited(api, bob)
    refused = bob.rpc("sharing/unshare_folder", {"shared_folder_id": folder})
    assert bare(error_of(refused)) == "no_permission"
    job = api.ok(api.rpc("sharing/unshare_folder", {"shared_folder_id": folder, "leave_a_copy": True}))
    done = api.ok(api.rpc("sharing/check_job_status", {"async_job_id": job["async_job_id"]}))
    assert done == {".tag": "complete"}
    mine = api.ok(api.rpc("files/get_metadata", {"path": "/Shared/a.txt"}))
    assert mine["id"] == first["id"]
    assert "sharing_info" not in mine
    copy = bob.ok(bob.rpc("files/get_metadata", {"path": "/Shared/a.txt"}))
    assert copy["id"] != first["id"]
    gone = api.rpc("sharing/get_folder_metadata", {"shared_folder_id": folder})
    assert bare(error_of(gone)) == "invalid_id"
    revisions = api.ok(api.rpc("files/list_revisions", {"path": "/Shared/a.txt", "mode": "id"}))["entries"]
    assert len(revisions) == 3  # before, while and after it was shared


def test_moves_and_copies_of_shared_folders(api: Api) -> None:
    api.put("/Shared/a.txt", b"1")
    share(api, "/Shared")
    share(api, "/Other")

    def tried(route: str, target: str) -> str:
        answer = api.rpc(f"files/{route}", {"from_path": "/Shared", "to_path": target})
        return "done" if answer.status_code == 200 else bare(error_of(answer))

    assert tried("copy_v2", "/Copy") == "cant_copy_shared_folder"
    assert tried("move_v2", "/Other/Shared") == "cant_nest_shared_folder"
    assert tried("move_v2", "/Sub/Shared") == "done"
    assert api.download("files/download", {"path": "/Sub/Shared/a.txt"}).content == b"1"


def test_members_come_and_go(api: Api, bob: Api) -> None:
    folder = invited(api, bob)
    add_member(api, folder, "new@example.com", "viewer")
    members = api.ok(api.rpc("sharing/list_folder_members", {"shared_folder_id": folder}))
    assert [(user["user"]["email"], user["access_type"][".tag"]) for user in members["users"]] == [
        ("ann@example.com", "owner"),
        (BOB, "editor"),
    ]
    assert members["invitees"][0]["invitee"] == {".tag": "email", "email": "new@example.com"}
    who = {".tag": "email", "email": BOB}
    arg = {"shared_folder_id": folder, "member": who, "access_level": "viewer"}
    api.ok(api.rpc("sharing/update_folder_member", arg))
    assert bare(error_of(bob.upload("files/upload", {"path": "/Shared/x"}, b""))) == "path/no_write_permission"
    removal = {"shared_folder_id": folder, "member": who, "leave_a_copy": False}
    assert bare(error_of(bob.rpc("sharing/remove_folder_member", removal))) == "no_permission"
    job = api.ok(api.rpc("sharing/remove_folder_member", removal))["async_job_id"]
    status = api.ok(api.rpc("sharing/check_remove_member_job_status", {"async_job_id": job}))
    assert status[".tag"] == "complete"
    assert bob.entries() == []
    assert bare(error_of(api.rpc("sharing/remove_folder_member", removal))) == "member_error/not_a_member"


def test_leaving(api: Api, bob: Api) -> None:
    folder = invited(api, bob)
    arg = {"shared_folder_id": folder}
    assert bare(error_of(api.rpc("sharing/relinquish_folder_membership", arg))) == "folder_owner"
    assert bob.ok(bob.rpc("sharing/relinquish_folder_membership", arg)) == {".tag": "complete"}
    assert bare(error_of(bob.rpc("sharing/mount_folder", arg))) == "access_error/not_a_member"
    add_member(api, folder, BOB)
    job = bob.ok(bob.rpc("sharing/relinquish_folder_membership", {**arg, "leave_a_copy": True}))
    assert job.pop(".tag") == "async_job_id"
    assert bob.ok(bob.rpc("sharing/check_job_status", job)) == {".tag": "complete"}


def test_team_folders_are_listed_but_not_unmounted(emulator: Emulator, api: Api) -> None:
    emulator.control.add_team(team_space=False)
    emulator.control.add_member("ann@example.com", admin=True)
    folder = emulator.control.add_team_folder("Plans")
    listed = api.ok(api.rpc("sharing/list_folders", {}))["entries"]
    assert [(entry["shared_folder_id"], entry["is_team_folder"]) for entry in listed] == [(folder, True)]
    assert bare(error_of(api.rpc("sharing/unmount_folder", {"shared_folder_id": folder}))) == "not_unmountable"
    assert bare(error_of(api.rpc("sharing/unshare_folder", {"shared_folder_id": folder}))) == "team_folder"


def test_the_sdk_lists_folders_in_pages(dbx: dropbox.Dropbox) -> None:
    for name in "abc":
        launch = dbx.sharing_share_folder(f"/{name}")
        assert launch.is_complete()
        assert isinstance(launch.get_complete(), sharing.SharedFolderMetadata)
    page = dbx.sharing_list_folders(limit=2)
    rest = dbx.sharing_list_folders_continue(page.cursor)
    assert [entry.name for entry in page.entries + rest.entries] == ["a", "b", "c"]
    assert rest.cursor is None
    assert dbx.sharing_list_mountable_folders().entries == []
    assert dbx.sharing_get_folder_metadata(page.entries[0].shared_folder_id).access_type.is_owner()


def test_received_files(emulator: Emulator, api: Api, bob: Api) -> None:
    file = api.put("/one.txt", b"12345")
    assert bob.ok(bob.rpc("sharing/list_received_files", {})) == {"entries": []}
    emulator.control.share_file("/one.txt", BOB)
    with dropbox.Dropbox(bob.token, session=api.http) as client:
        received = client.sharing_list_received_files().entries
        assert [(entry.name, entry.id) for entry in received] == [("one.txt", file["id"])]
        metadata, response = client.sharing_get_shared_link_file(received[0].preview_url)
        assert (metadata.name, response.content) == ("one.txt", b"12345")


def test_shared_folders_survive_a_restart(tmp_path: Any) -> None:
    with Emulator(tmp_path) as first:
        first.control.add_account(BOB, "Bob")
        first.control.write("/Shared/a.txt", b"1")
        first.control.share_folder_with_account("/Shared", BOB, access="viewer")
    with Emulator(tmp_path) as second:
        assert second.control.tree(account=BOB) == {"/Shared": None, "/Shared/a.txt": 1}
        assert second.control.metadata("/Shared", account=BOB)["sharing_info"]["read_only"] is True


def test_control_over_http(emulator: Emulator, api: Api, bob: Api) -> None:
    url = f"{emulator.http_url}/_emulator/share_folder_with_account"
    answer = api.http.post(url, json={"path": "/Shared", "email": BOB, "access": "viewer"}, timeout=60)
    assert answer.status_code == 200
    assert bob.ok(bob.rpc("sharing/list_folders", {}))["entries"][0]["shared_folder_id"] == answer.json()


def test_batches_tell_readers_entry_by_entry(api: Api, bob: Api) -> None:
    invited(api, bob, "viewer")
    sessions = [bob.ok(bob.upload("files/upload_session/start", {"close": True}, b"1"))["session_id"] for _ in range(2)]
    entries = [
        {"cursor": {"session_id": session, "offset": 1}, "commit": {"path": path}}
        for session, path in zip(sessions, ("/Shared/a", "/a"), strict=True)
    ]
    result = bob.ok(bob.rpc("files/upload_session/finish_batch_v2", {"entries": entries}))["entries"]
    assert [entry[".tag"] for entry in result] == ["failure", "success"]
    assert bare(result[0]["failure"]) == "path/no_write_permission"
