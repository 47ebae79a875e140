"""Downloads: headers, ranges, revisions; links and zip files."""

from __future__ import annotations

import io
import json
import os
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fs_dropbox.emulator.routes import links

from .raw_api import Api, bare, error_of


def test_headers(api: Api) -> None:
    metadata = api.put("/\u00e4.txt", b"hello")
    response = api.download("files/download", {"path": "/\u00c4.TXT"})
    assert (response.status_code, response.content) == (200, b"hello")
    result = response.headers["Dropbox-API-Result"]
    assert result.isascii()
    assert json.loads(result) == metadata
    assert response.headers["ETag"] == f'W/"{metadata["rev"]}"'
    assert response.headers["Accept-Ranges"] == "bytes"
    assert response.headers["Content-Length"] == response.headers["Original-Content-Length"] == "5"
    assert response.headers["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("asked", "expected", "content_range"),
    [
        ("bytes=0-0", b"0", "bytes 0-0/10"),
        ("bytes=3-5", b"345", "bytes 3-5/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=7-99", b"789", "bytes 7-9/10"),
        ("bytes=-4", b"6789", "bytes 6-9/10"),
    ],
)
def test_ranges(api: Api, asked: str, expected: bytes, content_range: str) -> None:
    api.put("/a", b"0123456789")
    response = api.download("files/download", {"path": "/a"}, Range=asked)
    assert (response.status_code, response.content) == (206, expected)
    assert response.headers["Content-Range"] == content_range
    assert json.loads(response.headers["Dropbox-API-Result"])["size"] == 10


def test_a_range_past_the_end_is_a_switch(api: Api) -> None:
    api.put("/a", b"0123456789")
    assert api.download("files/download", {"path": "/a"}, Range="bytes=10-").status_code == 416
    api.emulator.options.range_past_end = "whole"
    response = api.download("files/download", {"path": "/a"}, Range="bytes=10-")
    assert (response.status_code, response.content) == (200, b"0123456789")
    api.emulator.options.range_past_end = "409"
    assert api.download("files/download", {"path": "/a"}, Range="bytes=10-").status_code == 409


def test_errors(api: Api) -> None:
    api.put("/folder/a", b"x")
    assert bare(error_of(api.download("files/download", {"path": "/none"}))) == "path/not_found"
    assert bare(error_of(api.download("files/download", {"path": "/folder"}))) == "path/not_file"
    not_found = api.download("files/download", {"path": "/none"})
    assert not_found.reason == not_found.json()["error_summary"]


def test_old_revisions_by_rev(api: Api) -> None:
    old = api.put("/a", b"old")
    api.put("/a", b"new", "overwrite")
    api.rpc("files/delete_v2", {"path": "/a"})
    response = api.download("files/download", {"path": f"rev:{old['rev']}"})
    assert response.content == b"old"
    by_field = api.download("files/download", {"path": "/a", "rev": old["rev"]})
    assert by_field.content == b"old"
    api.emulator.options.history_seconds = -1
    gone = api.download("files/download", {"path": f"rev:{old['rev']}"})
    assert bare(error_of(gone)) == "path/not_found"


def test_the_argument_may_be_in_the_url(api: Api) -> None:
    api.put("/a", b"hello")
    url = "https://content.dropboxapi.com/2/files/download"
    params = {"arg": '{"path":"/a"}', "authorization": f"Bearer {api.token}"}
    assert api.http.get(url, params=params, timeout=30).content == b"hello"


def test_a_known_etag_saves_the_body(api: Api) -> None:
    etag = f'W/"{api.put("/a", b"hello")["rev"]}"'
    response = api.download("files/download", {"path": "/a"}, **{"If-None-Match": etag})
    assert (response.status_code, response.content) == (304, b"")
    for known in (etag.removeprefix("W/"), f'"0123456789", {etag}', "*"):
        assert api.download("files/download", {"path": "/a"}, **{"If-None-Match": known}).status_code == 304
    other = api.download("files/download", {"path": "/a"}, **{"If-None-Match": 'W/"0123456789"'})
    assert (other.status_code, other.content) == (200, b"hello")


def test_temporary_link(api: Api) -> None:
    api.put("/a", b"hello")
    answer = api.ok(api.rpc("files/get_temporary_link", {"path": "/a"}))
    assert answer["metadata"]["name"] == "a"
    api.put("/a", b"changed", "overwrite")
    assert api.http.get(answer["link"], timeout=30).content == b"hello"
    part = api.http.get(answer["link"], headers={"Range": "bytes=1-2"}, timeout=30)
    assert (part.status_code, part.content) == (206, b"el")
    api.emulator.options.temporary_link_seconds = -1
    expired = api.ok(api.rpc("files/get_temporary_link", {"path": "/a"}))["link"]
    assert api.http.get(expired, timeout=30).status_code == 410


def test_temporary_upload_link_works_once(api: Api) -> None:
    arg = {"commit_info": {"path": "/up", "mode": "overwrite"}, "duration": 60}
    link = api.ok(api.rpc("files/get_temporary_upload_link", arg))["link"]
    headers = {"Content-Type": "application/octet-stream"}
    first = api.http.post(link, data=b"hello", headers=headers, timeout=30)
    assert (first.status_code, set(first.json())) == (200, {"content-hash"})
    assert api.emulator.control.read("/up") == b"hello"
    assert api.http.post(link, data=b"again", headers=headers, timeout=30).status_code == 410


def test_of_two_uploads_to_a_temporary_link_one_is_stored(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    arg = {"commit_info": {"path": "/up", "mode": "add", "autorename": True}, "duration": 60}
    link = api.ok(api.rpc("files/get_temporary_upload_link", arg))["link"]
    both = threading.Barrier(2)

    def receive_together(*arguments: Any, **options: Any) -> None:
        receive(*arguments, **options)
        both.wait(30)

    receive = links.receive  # type: ignore[attr-defined]
    monkeypatch.setattr(links, "receive", receive_together)

    def send(data: bytes) -> int:
        return api.http.post(
            link, data=data, headers={"Content-Type": "application/octet-stream"}, timeout=60
        ).status_code

    with ThreadPoolExecutor(2) as pool:
        statuses = list(pool.map(send, (b"one", b"other")))
    assert sorted(statuses) == [200, 410]
    assert api.emulator.control.tree() == {"/up": 3 if statuses[0] == 200 else 5}


def test_a_temporary_upload_link_outlives_an_upload_that_is_refused(api: Api) -> None:
    api.put("/up", b"there already")
    arg = {"commit_info": {"path": "/up", "mode": "add"}, "duration": 60}
    link = api.ok(api.rpc("files/get_temporary_upload_link", arg))["link"]
    headers = {"Content-Type": "application/octet-stream"}
    assert api.http.post(link, data=b"hello", headers=headers, timeout=30).status_code == 409
    api.emulator.control.delete("/up")
    assert api.http.post(link, data=b"hello", headers=headers, timeout=30).status_code == 200
    assert api.emulator.control.read("/up") == b"hello"


def test_download_zip(api: Api) -> None:
    big = os.urandom(3 << 20)
    api.put("/Folder/a/big", big)
    api.put("/Folder/small", b"small")
    api.rpc("files/create_folder_v2", {"path": "/Folder/empty"})
    response = api.download("files/download_zip", {"path": "/folder"})
    assert response.headers["Content-Type"] == "application/zip"
    assert json.loads(response.headers["Dropbox-API-Result"])["metadata"]["name"] == "Folder"
    archive = zipfile.ZipFile(io.BytesIO(response.content))
    assert sorted(archive.namelist()) == ["Folder/", "Folder/a/", "Folder/a/big", "Folder/empty/", "Folder/small"]
    assert archive.read("Folder/a/big") == big
    assert bare(error_of(api.download("files/download_zip", {"path": "/folder/small"}))) == "path/not_folder"
