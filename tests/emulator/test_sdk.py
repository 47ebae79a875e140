"""The official SDK, unmodified, decodes and validates every answer: the shapes are those that it expects."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import dropbox
import pytest
from dropbox import common, exceptions, files
from dropbox.file_transfer import Downloader, Uploader, UploadOptions

from .raw_api import Api


def refused(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Return the error union with which a call fails."""
    with pytest.raises(exceptions.ApiError) as caught:
        call(*arguments, **options)
    return caught.value.error


def test_files_and_folders(dbx: dropbox.Dropbox) -> None:
    when = datetime(2020, 1, 2, 3, 4, 5)
    uploaded = dbx.files_upload(b"hello", "/Folder/a.txt", client_modified=when)
    assert (uploaded.client_modified, uploaded.size) == (when, 5)
    assert isinstance(dbx.files_get_metadata("/folder"), files.FolderMetadata)
    assert dbx.files_create_folder_v2("/new").metadata.name == "new"
    assert isinstance(dbx.files_copy_v2("/folder", "/copy").metadata, files.FolderMetadata)
    assert dbx.files_move_v2("/copy/a.txt", "/b.txt").metadata.path_lower == "/b.txt"
    assert dbx.files_delete_v2("/b.txt").metadata.size == 5
    gone = dbx.files_get_metadata("/b.txt", include_deleted=True)
    assert isinstance(gone, files.DeletedMetadata)
    metadata, response = dbx.files_download("/folder/a.txt")
    with response:
        assert (metadata.rev, response.content) == (uploaded.rev, b"hello")
    replaced = dbx.files_upload(b"more", "/folder/a.txt", mode=files.WriteMode.update(uploaded.rev))
    revisions = dbx.files_list_revisions("/folder/a.txt")
    assert [entry.rev for entry in revisions.entries] == [replaced.rev, uploaded.rev]
    assert dbx.files_restore("/folder/a.txt", uploaded.rev).size == 5
    assert dbx.files_get_temporary_link("/folder/a.txt").metadata.size == 5
    link = dbx.files_get_temporary_upload_link(files.CommitInfo("/up"), duration=60).link
    assert link.startswith("https://")
    metadata, response = dbx.files_download_zip("/folder")
    with response:
        assert (metadata.metadata.name, response.content[:2]) == ("Folder", b"PK")


def test_typed_errors(dbx: dropbox.Dropbox) -> None:
    dbx.files_upload(b"x", "/a")
    assert refused(dbx.files_get_metadata, "/none").get_path().is_not_found()
    conflict = refused(dbx.files_upload, b"y", "/a").get_path()
    assert conflict.reason.get_conflict().is_file()
    assert conflict.upload_session_id
    assert refused(dbx.files_delete_v2, "/none").get_path_lookup().is_not_found()
    assert refused(dbx.files_move_v2, "/none", "/b").get_from_lookup().is_not_found()
    assert refused(dbx.files_copy_v2, "/a", "/a").get_to().get_conflict().is_file()
    assert refused(dbx.files_list_folder, "/a").get_path().is_not_folder()
    assert refused(dbx.files_download, "/none").get_path().is_not_found()
    assert refused(dbx.files_restore, "/a", "0123456789").is_invalid_revision()
    assert refused(dbx.files_list_revisions, "/none").get_path().is_not_found()
    with pytest.raises(exceptions.BadInputError):
        dbx.files_list_folder_continue("junk")
    with pytest.raises(exceptions.PathRootError):
        dbx.with_path_root(common.PathRoot.root("1")).files_list_folder("")


def test_batches(dbx: dropbox.Dropbox) -> None:
    created = dbx.files_create_folder_batch(["/a", "/b"]).get_complete()
    assert [entry.get_success().metadata.name for entry in created.entries] == ["a", "b"]
    relocation = [files.RelocationPath("/a", "/c"), files.RelocationPath("/none", "/d")]
    job = dbx.files_move_batch_v2(relocation).get_async_job_id()
    first, second = dbx.files_move_batch_check_v2(job).get_complete().entries
    assert first.get_success().name == "c"
    assert second.get_failure().get_relocation_error().get_from_lookup().is_not_found()
    job = dbx.files_copy_batch_v2([files.RelocationPath("/c", "/e")]).get_async_job_id()
    assert dbx.files_copy_batch_check_v2(job).is_complete()
    job = dbx.files_delete_batch([files.DeleteArg("/c"), files.DeleteArg("/none")]).get_async_job_id()
    first, second = dbx.files_delete_batch_check(job).get_complete().entries
    assert first.get_success().metadata.name == "c"
    assert second.get_failure().get_path_lookup().is_not_found()
    assert refused(dbx.files_delete_batch_check, "dbjid:none").is_invalid_async_job_id()


def test_upload_sessions_in_batches(dbx: dropbox.Dropbox) -> None:
    ids = dbx.files_upload_session_start_batch(2).session_ids
    entries = [
        files.UploadSessionAppendBatchArgEntry(files.UploadSessionCursor(session_id, 0), 3, close=True)
        for session_id in ids
    ]
    appended = dbx.files_upload_session_append_batch(b"onetwo", entries)
    assert all(entry.is_success() for entry in appended.entries)
    commits = [
        files.UploadSessionFinishArg(files.UploadSessionCursor(session_id, 3), files.CommitInfo(f"/{index}"))
        for index, session_id in enumerate([*ids, "unknown"])
    ]
    first, second, third = dbx.files_upload_session_finish_batch_v2(commits).entries
    assert [first.get_success().name, second.get_success().size] == ["0", 3]
    assert third.get_failure().get_lookup_failed().is_not_found()


def test_search_and_account(dbx: dropbox.Dropbox) -> None:
    dbx.files_upload(b"x", "/report.txt")
    found = dbx.files_search_v2("report").matches
    assert found[0].metadata.get_metadata().name == "report.txt"
    account = dbx.users_get_current_account()
    assert account.root_info.root_namespace_id == account.root_info.home_namespace_id
    assert dbx.users_get_account(account.account_id).email == account.email
    assert dbx.users_get_account_batch([account.account_id])[0].is_teammate
    usage = dbx.users_get_space_usage()
    assert (usage.used, usage.allocation.get_individual().allocated) == (1, 2 * 10**12)
    assert dbx.check_user("hello").result == "hello"


def test_listing_and_longpoll(dbx: dropbox.Dropbox) -> None:
    cursor = dbx.files_list_folder_get_latest_cursor("", recursive=True).cursor
    dbx.files_upload(b"x", "/a")
    assert dbx.files_list_folder_longpoll(cursor).changes
    dbx.files_delete_v2("/a")
    (deleted,) = dbx.files_list_folder_continue(cursor).entries
    assert isinstance(deleted, files.DeletedMetadata)


class Numbers:
    """A source of the SDK's Uploader that can be read in ranges."""

    def __init__(self, size: int) -> None:
        self._data = bytes(number % 251 for number in range(size // 100)) * 100

    def size(self) -> int:
        return len(self._data)

    def open(self) -> io.BytesIO:
        return io.BytesIO(self._data)

    def open_range(self, offset: int, length: int) -> io.BytesIO:
        return io.BytesIO(self._data[offset : offset + length])


def test_file_transfer_helpers(api: Api, dbx: dropbox.Dropbox, tmp_path: Any) -> None:
    api.emulator.control.latency(route_seconds={"files/upload_session/append_v2": 0.1})  # so that parallel ones meet
    source = Numbers(20_000_000)
    for path, threads in (("/one by one", 1), ("/parallel", 4)):
        Uploader(dbx).upload(source, files.CommitInfo(path), UploadOptions(parallel_uploads=threads))
        assert api.emulator.control.read(path) == source.open().read()
    assert api.emulator.control.peak_concurrency("files/upload_session/append_v2") > 1
    target = tmp_path / "file"
    Downloader(dbx).download_file("/parallel", str(target))
    assert target.read_bytes() == source.open().read()


@pytest.fixture
def patient(api: Api) -> Iterator[dropbox.Dropbox]:
    with dropbox.Dropbox(oauth2_access_token=api.token, session=api.http) as client:
        yield client


def test_the_sdk_retries_what_the_emulator_declares(api: Api, patient: dropbox.Dropbox) -> None:
    control = api.emulator.control
    control.fault("users/get_space_usage", "server_error", status=503)
    patient.users_get_space_usage()
    control.fault("users/get_space_usage", "rate_limit", form="text", retry_after=1)
    begin = time.monotonic()
    patient.users_get_space_usage()
    assert time.monotonic() - begin >= 1
    assert control.calls()["users/get_space_usage"] == 4


def test_tokens(api: Api, dbx: dropbox.Dropbox) -> None:
    dbx.check_user("")
    api.emulator.control.expire_tokens()
    dbx.check_user("")
    assert api.emulator.control.calls()["oauth2/token"] == 2
    api.emulator.control.revoke_tokens()
    with pytest.raises(exceptions.AuthError) as caught:
        dbx.check_user("")
    assert caught.value.error.is_invalid_access_token()
    api.emulator.control.expire_tokens()
    limited = dropbox.Dropbox(oauth2_access_token="junk", session=api.http)
    with pytest.raises(exceptions.AuthError):
        limited.users_get_current_account()


def test_rate_limits_and_server_errors(api: Api, dbx: dropbox.Dropbox) -> None:
    api.emulator.control.fault("check/user", "rate_limit")
    with pytest.raises(exceptions.RateLimitError) as caught:
        dbx.check_user("")
    assert caught.value.error.reason.is_too_many_requests()
    api.emulator.control.fault("check/user", "server_error")
    with pytest.raises(exceptions.InternalServerError):
        dbx.check_user("")
