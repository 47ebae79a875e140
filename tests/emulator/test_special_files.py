"""Files that are not ordinary: Paper and Google docs, locks, tags, restricted content, links, thumbnails, copies."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from typing import Any

import dropbox
import pytest
from dropbox import files

from fs_dropbox.content_hash import ContentHash
from fs_dropbox.emulator import Emulator

from .people import BOB, api_of, upload_to_api
from .raw_api import Api, bare, error_of

# Docs -------------------------------------------------------------------------


def exported(api: Api, path: str, **fields: str) -> tuple[dict[str, Any], bytes]:
    answer = api.download("files/export", {"path": path, **fields})
    assert answer.status_code == 200, answer.text
    return json.loads(answer.headers["Dropbox-API-Result"]), answer.content


def test_a_paper_doc_cannot_be_downloaded_but_exported(emulator: Emulator, api: Api, dbx: dropbox.Dropbox) -> None:
    shown = emulator.control.make_paper("/Notes.paper", "# Title\n\nText & more")
    assert shown["is_downloadable"] is False
    assert shown["export_info"] == {"export_as": "html", "export_options": ["html", "markdown"]}
    assert bare(error_of(api.download("files/download", {"path": "/Notes.paper"}))) == "unsupported_file"
    assert bare(error_of(api.rpc("files/get_temporary_link", {"path": "/Notes.paper"}))) == "unsupported_file"
    result, data = exported(api, "/Notes.paper")
    assert result["export_metadata"]["name"] == "Notes.html"
    assert result["export_metadata"]["size"] == len(data)
    assert result["export_metadata"]["paper_revision"] == 1
    assert result["file_metadata"]["id"] == shown["id"]
    assert data == b"<html><body><h1>Title</h1><p>Text &amp; more</p></body></html>"
    result, data = exported(api, "/Notes.paper", export_format="markdown")
    assert (result["export_metadata"]["name"], data) == ("Notes.md", b"# Title\n\nText & more")
    wrong = api.download("files/export", {"path": "/Notes.paper", "export_format": "pdf"})
    assert bare(error_of(wrong)) == "invalid_export_format"
    metadata, response = dbx.files_export("/Notes.paper", export_format="markdown")
    assert response.content == b"# Title\n\nText & more"
    assert metadata.export_metadata.export_hash == ContentHash(response.content).hexdigest()


def test_templates_and_google_docs(emulator: Emulator, api: Api) -> None:
    emulator.control.make_paper("/Plan.papert", "x")
    assert exported(api, "/Plan.papert")[0]["export_metadata"]["name"] == "Plan.papert.html"
    shown = emulator.control.make_google_doc("/Letter.gdoc", b"docx bytes")
    assert shown["export_info"] == {"export_as": "docx"}
    result, data = exported(api, "/Letter.gdoc")
    assert (result["export_metadata"]["name"], data) == ("Letter.docx", b"docx bytes")
    assert bare(error_of(api.download("files/download", {"path": "/Letter.gdoc"}))) == "unsupported_file"


def test_ordinary_files_are_not_exported(api: Api) -> None:
    api.put("/a.txt", b"1")
    assert bare(error_of(api.download("files/export", {"path": "/a.txt"}))) == "non_exportable"
    assert bare(error_of(api.download("files/export", {"path": "/none"}))) == "path/not_found"


def test_docs_can_be_hidden_from_listings(emulator: Emulator, api: Api) -> None:
    emulator.control.make_paper("/Notes.paper")
    api.put("/a.txt", b"1")
    assert {entry["name"] for entry in api.entries()} == {"Notes.paper", "a.txt"}
    hidden = {"path": "", "include_non_downloadable_files": False}
    page = api.ok(api.rpc("files/list_folder", hidden))
    assert [entry["name"] for entry in page["entries"]] == ["a.txt"]
    emulator.control.make_paper("/More.paper")
    api.put("/b.txt", b"1")
    assert [entry["name"] for entry in api.news(page["cursor"])[0]] == ["b.txt"]


def test_docs_are_moved_copied_and_deleted_like_files(emulator: Emulator, api: Api) -> None:
    emulator.control.make_paper("/Notes.paper", "x")
    api.ok(api.rpc("files/move_v2", {"from_path": "/Notes.paper", "to_path": "/b/Notes.paper"}))
    copy = api.ok(api.rpc("files/copy_v2", {"from_path": "/b/Notes.paper", "to_path": "/c.paper"}))["metadata"]
    assert copy["is_downloadable"] is False
    assert exported(api, "/c.paper", export_format="markdown")[1] == b"x"
    assert api.rpc("files/delete_v2", {"path": "/b/Notes.paper"}).status_code == 200


def test_creating_and_changing_paper_docs(api: Api, dbx: dropbox.Dropbox) -> None:
    made = dbx.files_paper_create(b"# A", "/Doc.paper", files.ImportFormat.markdown)
    assert (made.result_path, made.paper_revision) == ("/Doc.paper", 1)
    assert dbx.files_paper_create(b"# A", "/Doc.paper", files.ImportFormat.markdown).result_path == "/Doc (1).paper"
    policy = files.PaperDocUpdatePolicy

    def change(body: bytes, how: Any, revision: int | None = None) -> int:
        result = dbx.files_paper_update(body, "/Doc.paper", files.ImportFormat.markdown, how, revision)
        return int(result.paper_revision)

    assert change(b"# B", policy.update, 1) == 2
    with pytest.raises(dropbox.exceptions.ApiError) as caught:
        change(b"# C", policy.update, 1)
    assert caught.value.error.is_revision_mismatch()
    assert change(b"end", policy.append) == 3
    assert change(b"begin", policy.prepend) == 4
    assert exported(api, "/Doc.paper", export_format="markdown")[1] == b"begin\n\n# B\n\nend"
    assert change(b"<p>x</p>", policy.overwrite) == 5


def test_refused_paper_docs(emulator: Emulator, api: Api) -> None:
    def refused(route: str, body: bytes = b"x", **arg: Any) -> str:
        given = {"import_format": "markdown", **arg}
        return bare(error_of(upload_to_api(api, f"files/paper/{route}", given, body)))

    assert refused("create", path="/a.txt") == "invalid_file_extension"
    assert refused("create", path="/a//b.paper") == "invalid_path"
    assert refused("create", b"\xff\xfe", path="/a.paper") == "content_malformed"
    assert refused("create", b"x" * (1 << 20) + b"y", path="/a.paper") == "doc_length_exceeded"
    api.put("/a.txt", b"1")
    assert refused("update", path="/a.txt", doc_update_policy="overwrite") == "path/unsupported_content_type"
    assert refused("update", path="/none.paper", doc_update_policy="overwrite") == "path/not_found"
    emulator.control.set_account(email_verified=False)
    assert refused("create", path="/a.paper") == "email_unverified"


# Restricted content and symbolic links ------------------------------------------


def test_restricted_content(emulator: Emulator, api: Api) -> None:
    api.put("/a", b"1")
    emulator.control.restrict("/a")
    assert bare(error_of(api.download("files/download", {"path": "/a"}))) == "path/restricted_content"
    assert bare(error_of(api.rpc("files/get_temporary_link", {"path": "/a"}))) == "path/restricted_content"
    assert api.ok(api.rpc("files/get_metadata", {"path": "/a"}))["size"] == 1
    emulator.control.restrict("/a", False)
    assert api.download("files/download", {"path": "/a"}).content == b"1"


def test_symbolic_links_are_shown(emulator: Emulator, dbx: dropbox.Dropbox) -> None:
    emulator.control.make_symlink("/link", "../target")
    assert dbx.files_get_metadata("/link").symlink_info.target == "../target"
    assert dbx.files_list_folder("").entries[0].symlink_info.target == "../target"


# Locks ----------------------------------------------------------------------------


@pytest.fixture
def shared(emulator: Emulator, api: Api, bob: Api) -> str:
    emulator.control.share_folder_with_account("/Shared", BOB)
    api.put("/Shared/a.txt", b"1")
    return "/Shared/a.txt"


def lock_call(api: Api, action: str, path: str) -> dict[str, Any]:
    entries = api.ok(api.rpc(f"files/{action}_batch", {"entries": [{"path": path}]}))["entries"]
    assert len(entries) == 1
    return dict(entries[0])


def test_locks(api: Api, bob: Api, shared: str) -> None:
    ann_id = api.ok(api.rpc("users/get_current_account"))["account_id"]
    locked = lock_call(api, "lock_file", shared)
    assert locked[".tag"] == "success"
    assert locked["lock"]["content"][".tag"] == "single_user"
    assert locked["lock"]["content"]["lock_holder_account_id"] == ann_id
    assert locked["metadata"]["file_lock_info"]["is_lockholder"] is True
    seen = bob.ok(bob.rpc("files/get_metadata", {"path": shared}))["file_lock_info"]
    assert (seen["is_lockholder"], seen["lockholder_account_id"]) == (False, ann_id)
    assert lock_call(bob, "get_file_lock", shared)["lock"] == locked["lock"]
    refused = lock_call(bob, "lock_file", shared)
    assert refused[".tag"] == "failure"
    assert refused["failure"] == {".tag": "lock_conflict", "lock": locked["lock"]}
    assert lock_call(bob, "unlock_file", shared)["failure"][".tag"] == "lock_conflict"
    assert lock_call(api, "unlock_file", shared)["lock"] == {"content": {".tag": "unlocked"}}
    assert "file_lock_info" not in bob.ok(bob.rpc("files/get_metadata", {"path": shared}))


@pytest.mark.parametrize("tag", ["access_restricted", "no_write_permission"])
def test_only_the_holder_writes_a_locked_file(emulator: Emulator, api: Api, bob: Api, shared: str, tag: str) -> None:
    emulator.control.options(locked_write=tag)
    emulator.control.lock(shared, by=BOB)
    answer = api.upload("files/upload", {"path": shared, "mode": "overwrite"}, b"2")
    assert bare(error_of(answer)) == f"path/{tag}"
    assert bare(error_of(api.rpc("files/delete_v2", {"path": shared}))) == f"path_write/{tag}"
    move = {"from_path": shared, "to_path": "/Shared/b.txt"}
    assert bare(error_of(api.rpc("files/move_v2", move))) == f"from_write/{tag}"
    old = api.ok(api.rpc("files/get_metadata", {"path": shared}))["rev"]
    assert bob.put(shared, b"2", "overwrite")["size"] == 1
    assert bare(error_of(api.rpc("files/restore", {"path": shared, "rev": old}))) == f"path_write/{tag}"
    emulator.control.unlock(shared)
    assert api.put(shared, b"3", "overwrite")["size"] == 1


def test_what_cannot_be_locked(emulator: Emulator, api: Api, bob: Api, shared: str) -> None:
    api.put("/private.txt", b"1")
    assert lock_call(api, "lock_file", "/private.txt")["failure"] == {".tag": "file_not_shared"}
    missing = lock_call(api, "lock_file", "/none")["failure"]
    assert missing == {".tag": "path_lookup", "path_lookup": {".tag": "not_found"}}
    assert bare(lock_call(api, "lock_file", "/Shared")["failure"]) == "path_lookup/not_file"
    emulator.control.make_paper("/Shared/doc.paper")
    assert lock_call(api, "lock_file", "/Shared/doc.paper")["failure"] == {".tag": "cannot_be_locked"}
    emulator.control.share_folder_with_account("/Shared", BOB, access="viewer")
    assert lock_call(bob, "lock_file", shared)["failure"] == {".tag": "no_write_permission"}


def test_the_sdk_reads_locks(dbx: dropbox.Dropbox, shared: str) -> None:
    result = dbx.files_lock_file_batch([files.LockFileArg(shared)]).entries[0].get_success()
    assert result.lock.content.is_single_user()
    conflict = dbx.files_lock_file_batch([files.LockFileArg("/none")]).entries[0].get_failure()
    assert conflict.get_path_lookup().is_not_found()


# Tags ---------------------------------------------------------------------------------


def test_tags(dbx: dropbox.Dropbox, api: Api) -> None:
    api.put("/a", b"1")
    api.put("/b", b"1")
    dbx.files_tags_add("/a", "Red")
    dbx.files_tags_add("/a", "red")
    found = dbx.files_tags_get(["/a", "/b"]).paths_to_tags
    assert [[tag.get_user_generated_tag().tag_text for tag in one.tags] for one in found] == [["red"], []]
    dbx.files_tags_remove("/a", "red")
    with pytest.raises(dropbox.exceptions.ApiError) as caught:
        dbx.files_tags_remove("/a", "red")
    assert caught.value.error.is_tag_not_present()
    for number in range(20):
        dbx.files_tags_add("/a", f"t{number}")
    assert bare(error_of(api.rpc("files/tags/add", {"path": "/a", "tag_text": "more"}))) == "too_many_tags"
    assert bare(error_of(api.rpc("files/tags/add", {"path": "/none", "tag_text": "x"}))) == "path/not_found"
    assert api.rpc("files/tags/add", {"path": "/a", "tag_text": "two words"}).status_code == 400
    assert api.rpc("files/tags/add", {"path": "/a", "tag_text": "x" * 33}).status_code == 400


# Contents from elsewhere -----------------------------------------------------------------


def test_save_url(api: Api, dbx: dropbox.Dropbox) -> None:
    api.put("/a", b"12345")
    links = [
        api.ok(api.rpc("files/get_temporary_link", {"path": "/a"}))["link"],
        dbx.sharing_create_shared_link_with_settings("/a").url,
    ]
    for url in links:
        launch = dbx.files_save_url("/saved", url)
        done = dbx.files_save_url_check_job_status(launch.get_async_job_id()).get_complete()
        assert done.content_hash == api.ok(api.rpc("files/get_metadata", {"path": "/a"}))["content_hash"]
    assert {entry["name"] for entry in api.entries()} == {"a", "saved"}  # the same content needs no second name
    launch = dbx.files_save_url("/other", "https://example.com/x")
    assert dbx.files_save_url_check_job_status(launch.get_async_job_id()).get_failed().is_download_failed()
    assert bare(error_of(api.rpc("files/save_url", {"path": "/x", "url": "ftp://example.com"}))) == "invalid_url"


def test_copy_references_work_between_accounts(emulator: Emulator, api: Api, bob: Api) -> None:
    api.put("/f/a", b"12345")
    got = api.ok(api.rpc("files/copy_reference/get", {"path": "/f"}))
    assert got["metadata"][".tag"] == "folder"
    save = "files/copy_reference/save"
    saved = bob.ok(bob.rpc(save, {"copy_reference": got["copy_reference"], "path": "/new/f"}))
    assert saved["metadata"]["path_display"] == "/new/f"
    assert bob.download("files/download", {"path": "/new/f/a"}).content == b"12345"
    again = bob.rpc(save, {"copy_reference": got["copy_reference"], "path": "/new/f"})
    assert bare(error_of(again)) == "path/conflict/folder"
    junk = bob.rpc(save, {"copy_reference": "junk", "path": "/x"})
    assert bare(error_of(junk)) == "invalid_copy_reference"
    other = api_of(api, BOB, app=emulator.control.add_app("Other")["app_key"])
    foreign = other.rpc(save, {"copy_reference": got["copy_reference"], "path": "/x"})
    assert bare(error_of(foreign)) == "no_permission"
    api.ok(api.rpc("files/delete_v2", {"path": "/f"}))
    assert bare(error_of(bob.rpc(save, {"copy_reference": got["copy_reference"], "path": "/x"}))) == "not_found"
    emulator.control.unlink()
    unlinked = bob.rpc(save, {"copy_reference": got["copy_reference"], "path": "/x"})
    assert bare(error_of(unlinked)) == "no_permission"


def test_a_copy_may_lie_in_what_was_copied(api: Api) -> None:
    api.put("/f/sub/a", b"12345")
    reference = api.ok(api.rpc("files/copy_reference/get", {"path": "/f"}))["copy_reference"]
    api.ok(api.rpc("files/copy_reference/save", {"copy_reference": reference, "path": "/f/sub/copy"}))
    assert [e["path_display"] for e in api.entries("/f/sub/copy", recursive=True)] == [
        "/f/sub/copy",
        "/f/sub/copy/sub",
        "/f/sub/copy/sub/a",
    ]


# Pictures ------------------------------------------------------------------------------------

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 64


def test_thumbnails_have_the_right_form(api: Api, dbx: dropbox.Dropbox) -> None:
    api.put("/p.png", PNG)
    metadata, response = dbx.files_get_thumbnail(
        "/p.png", format=files.ThumbnailFormat.png, size=files.ThumbnailSize.w128h128
    )
    assert metadata.name == "p.png"
    assert response.content.startswith(PNG[:8])
    width, height = struct.unpack(">II", response.content[16:24])
    assert (width, height) == (128, 128)
    start = response.content.index(b"IDAT") + 4
    length = struct.unpack(">I", response.content[start - 8 : start - 4])[0]
    assert len(zlib.decompress(response.content[start : start + length])) == 129 * 128
    preview, response = dbx.files_get_thumbnail_v2(files.PathOrLink.path("/p.png"))
    assert preview.file_metadata.name == "p.png"
    assert response.content[:3] == b"\xff\xd8\xff"
    assert response.content[-2:] == b"\xff\xd9"


def test_thumbnails_of_links(api: Api, dbx: dropbox.Dropbox) -> None:
    api.put("/f/p.png", PNG)
    link = files.PathOrLink.link(
        files.SharedLinkFileInfo(url=dbx.sharing_create_shared_link_with_settings("/f").url, path="/p.png")
    )
    preview, response = dbx.files_get_thumbnail_v2(link)
    assert preview.link_metadata.url == link.get_link().url
    assert response.content[:3] == b"\xff\xd8\xff"
    gone = {"resource": {".tag": "link", "url": "https://www.dropbox.com/scl/fi/none/p.png?rlkey=none"}}
    assert bare(error_of(api.download("files/get_thumbnail_v2", gone))) == "not_found"


def test_thumbnails_in_batches(api: Api) -> None:
    api.put("/p.png", PNG)
    api.put("/t.txt", b"1")
    arg = {"entries": [{"path": "/p.png"}, {"path": "/t.txt"}, {"path": "/none.png"}]}
    host = {"Content-Type": "application/json"}
    answer = api._send("content", "files/get_thumbnail_batch", host, json.dumps(arg).encode())
    entries = api.ok(answer)["entries"]
    assert base64.b64decode(entries[0]["thumbnail"])[:3] == b"\xff\xd8\xff"
    assert entries[1]["failure"] == {".tag": "unsupported_extension"}
    assert entries[2]["failure"] == {".tag": "path", "path": {".tag": "not_found"}}


def test_what_has_no_picture(api: Api) -> None:
    api.put("/fake.png", b"not a picture")
    api.put("/t.doc", b"1")
    thumbnail = "files/get_thumbnail"
    assert bare(error_of(api.download(thumbnail, {"path": "/fake.png"}))) == "unsupported_image"
    assert bare(error_of(api.download(thumbnail, {"path": "/t.doc"}))) == "unsupported_extension"
    assert bare(error_of(api.download("files/get_preview", {"path": "/t.doc"}))) == "unsupported_content"
    assert bare(error_of(api.download("files/get_preview", {"path": "/fake.png"}))) == "unsupported_extension"


@pytest.mark.parametrize("url", ["http://[", "https://", "file:///etc/passwd", "nonsense", ""])
def test_save_url_takes_web_addresses_only(api: Api, url: str) -> None:
    assert bare(error_of(api.rpc("files/save_url", {"path": "/x", "url": url}))) == "invalid_url"
