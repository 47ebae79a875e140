"""File requests: opened, changed, listed, closed, handed in to."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import dropbox
import pytest
from dropbox import file_requests

from fs_dropbox.emulator import Emulator

from .people import api_of
from .raw_api import Api, bare, error_of


def create(api: Api, destination: str = "/In", **fields: Any) -> dict[str, Any]:
    answer = api.ok(api.rpc("file_requests/create", {"title": "Photos", "destination": destination, **fields}))
    assert isinstance(answer, dict)
    return answer


def test_a_new_request(api: Api) -> None:
    made = create(api, "/In/Photos", description="all of them")
    assert (made["title"], made["destination"], made["is_open"]) == ("Photos", "/In/Photos", True)
    assert (made["file_count"], made["description"]) == (0, "all of them")
    assert made["url"] == f"https://www.dropbox.com/request/{made['id']}"
    assert "deadline" not in made
    assert api.ok(api.rpc("file_requests/get", {"id": made["id"]})) == made
    assert api.ok(api.rpc("files/get_metadata", {"path": "/In/Photos"}))[".tag"] == "folder"


def test_the_sdk_handles_requests(dbx: dropbox.Dropbox) -> None:
    deadline = file_requests.FileRequestDeadline(
        deadline=datetime(2040, 1, 2, 3, 4, 5), allow_late_uploads=file_requests.GracePeriod.one_day
    )
    made = dbx.file_requests_create("A", "/In", deadline=deadline)
    assert made.deadline.deadline == datetime(2040, 1, 2, 3, 4, 5)
    assert made.deadline.allow_late_uploads.is_one_day()
    kept = dbx.file_requests_update(made.id, title="B", destination="/Other", open=False)
    assert (kept.title, kept.destination, kept.is_open) == ("B", "/Other", False)
    assert kept.deadline == made.deadline
    without = dbx.file_requests_update(made.id, deadline=file_requests.UpdateFileRequestDeadline.update(None))
    assert without.deadline is None
    again = dbx.file_requests_update(made.id, deadline=file_requests.UpdateFileRequestDeadline.update(deadline))
    assert again.deadline == deadline
    dbx.file_requests_create("C", "/In")
    page = dbx.file_requests_list_v2(limit=1)
    rest = dbx.file_requests_list_continue(page.cursor)
    assert [request.title for request in page.file_requests + rest.file_requests] == ["B", "C"]
    assert (page.has_more, rest.has_more) == (True, False)
    assert dbx.file_requests_count().file_request_count == 2
    assert [request.title for request in dbx.file_requests_delete_all_closed().file_requests] == ["B"]
    assert dbx.file_requests_count().file_request_count == 1


def test_only_closed_requests_are_deleted(api: Api) -> None:
    opened, closed = create(api), create(api, open=False)
    both = api.rpc("file_requests/delete", {"ids": [closed["id"], opened["id"]]})
    assert bare(error_of(both)) == "file_request_open"
    assert bare(error_of(api.rpc("file_requests/delete", {"ids": ["none"]}))) == "not_found"
    deleted = api.ok(api.rpc("file_requests/delete", {"ids": [closed["id"]]}))["file_requests"]
    assert [request["id"] for request in deleted] == [closed["id"]]
    assert api.ok(api.rpc("file_requests/count"))["file_request_count"] == 1


def test_refusals(emulator: Emulator, api: Api) -> None:
    api.put("/file", b"1")

    def refused(**fields: Any) -> str:
        given = {"title": "T", "destination": "/In", **fields}
        return bare(error_of(api.rpc("file_requests/create", given)))

    assert refused(destination="/file") == "not_a_folder"
    assert refused(destination="/file/below") == "not_a_folder"
    assert refused(destination="/a//b") == "invalid_location"
    assert api.rpc("file_requests/create", {"title": "", "destination": "/In"}).status_code == 400
    assert bare(error_of(api.rpc("file_requests/get", {"id": "none"}))) == "not_found"
    assert bare(error_of(api.rpc("file_requests/list/continue", {"cursor": "junk"}))) == "invalid_cursor"
    emulator.control.set_account(account_type="basic")
    assert refused(deadline={"deadline": "2040-01-02T03:04:05Z"}) == "validation_error"
    emulator.control.set_account(email_verified=False)
    assert refused() == "email_unverified"
    assert api.ok(api.rpc("file_requests/count"))["file_request_count"] == 0


def test_read_only_folders_take_no_requests(emulator: Emulator, api: Api) -> None:
    emulator.control.add_account("bob@example.com", "Bob")
    emulator.control.share_folder_with_account("/Shared", "bob@example.com", access="viewer")
    bob = api_of(api, "bob@example.com")
    for path in ("/Shared", "/Shared/sub"):
        answer = bob.rpc("file_requests/create", {"title": "T", "destination": path})
        assert bare(error_of(answer)) == "no_write_permission"


def test_requests_belong_to_their_owner_and_follow_the_folder(emulator: Emulator, api: Api) -> None:
    made = create(api, "/In")
    emulator.control.add_account("bob@example.com", "Bob")
    bob = api_of(api, "bob@example.com")
    assert bare(error_of(bob.rpc("file_requests/get", {"id": made["id"]}))) == "not_found"
    api.ok(api.rpc("files/move_v2", {"from_path": "/In", "to_path": "/Moved"}))
    assert api.ok(api.rpc("file_requests/get", {"id": made["id"]}))["destination"] == "/Moved"


def test_app_folder_apps_see_their_own_requests(emulator: Emulator, api: Api) -> None:
    create(api, "/In")
    boxed = api_of(api, app=emulator.control.add_app("Box", app_folder=True)["app_key"])
    made = create(boxed, "/Here")
    assert made["destination"] == "/Here"
    listed = boxed.ok(boxed.rpc("file_requests/list_v2", {}))["file_requests"]
    assert [request["id"] for request in listed] == [made["id"]]
    assert api.ok(api.rpc("file_requests/get", {"id": made["id"]}))["destination"] == "/Apps/Box/Here"


def test_handing_in(emulator: Emulator, api: Api) -> None:
    made = create(api, "/In")
    for _ in range(2):
        emulator.control.submit(made["id"], "photo.jpg", b"p")
    assert [entry["name"] for entry in api.entries("/In")] == ["photo (1).jpg", "photo.jpg"]
    assert api.ok(api.rpc("file_requests/get", {"id": made["id"]}))["file_count"] == 2
    api.ok(api.rpc("file_requests/update", {"id": made["id"], "open": False}))
    with pytest.raises(ValueError, match="closed"):
        emulator.control.submit(made["id"], "photo.jpg", b"p")
