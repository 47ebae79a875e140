"""Paper and Google documents: shown as what they are exported as, with exact sizes, and never written."""

from __future__ import annotations

import io
from collections.abc import Callable

import fs.errors
import pytest

from fs_dropbox import DropboxFS
from fs_dropbox.api import downloads
from fs_dropbox.emulator import Emulator
from tests.fs_dropbox.scarce_threads import allow_threads

TEXT = "# Title\n\nText & more, ünïcode"


@pytest.fixture
def documents(emulator: Emulator) -> Emulator:
    emulator.control.make_paper("/d/Notes.paper", TEXT)
    emulator.control.make_paper("/d/Plan.papert", "a template")
    emulator.control.make_google_doc("/d/Letter.gdoc", b"docx bytes")
    emulator.control.write("/d/a.txt", b"plain")
    return emulator


def export_calls(emulator: Emulator) -> int:
    return emulator.control.calls()["files/export"]


def test_documents_are_shown_and_read_as_their_exports(documents: Emulator, dropbox_fs: DropboxFS) -> None:
    shown = {info.name: info.size for info in dropbox_fs.scandir("/d", ["details"])}
    assert shown == {
        "Notes.paper.md": len(TEXT.encode()),
        "Plan.papert.md": len("a template"),
        "Letter.gdoc.docx": len(b"docx bytes"),
        "a.txt": 5,
    }
    assert dropbox_fs.readtext("/d/Notes.paper.md") == TEXT
    assert dropbox_fs.readbytes("/d/letter.GDOC.docx") == b"docx bytes"
    assert sorted(dropbox_fs.listdir("/d")) == sorted(shown)
    assert sorted(path for path in dropbox_fs.walk.files("/")) == sorted(f"/d/{name}" for name in shown)


def test_a_cold_stat_tells_the_exact_size_and_one_export_serves_all(documents: Emulator, dropbox_fs: DropboxFS) -> None:
    assert dropbox_fs.getsize("/d/Notes.paper.md") == len(TEXT.encode())
    assert export_calls(documents) == 1
    assert dropbox_fs.getinfo("/d/Notes.paper.md", ["details"]).name == "Notes.paper.md"
    assert dropbox_fs.cached_info("/d/Notes.paper.md", ["details"]) is not None
    with dropbox_fs.openbin("/d/Notes.paper.md") as file:
        assert file.seek(0, 2) == len(TEXT.encode())
        assert file.version  # type: ignore[attr-defined]
        file.seek(2)
        assert file.read(5) == b"Title"
    assert export_calls(documents) == 1


def test_no_thread_is_needed(
    documents: Emulator, open_dropbox: Callable[..., DropboxFS], monkeypatch: pytest.MonkeyPatch
) -> None:
    allow_threads(monkeypatch, "fs-dropbox-small", 0)
    dropbox_fs = open_dropbox(change_feed=False)
    assert sum(info.size for info in dropbox_fs.scandir("/d", ["details"])) == len(TEXT.encode()) + 10 + 10 + 5
    for name in ("one", "other"):
        documents.control.write(f"/e/{name}", b"")
        documents.control.delete(f"/e/{name}")
    assert sorted(info.name for info in dropbox_fs.deleted("/e")) == ["one", "other"]


def test_an_edited_document_is_exported_anew(documents: Emulator, open_dropbox: Callable[..., DropboxFS]) -> None:
    dropbox_fs = open_dropbox(cache=False)
    assert dropbox_fs.readtext("/d/Notes.paper.md") == TEXT
    documents.control.make_paper("/d/Notes.paper", "changed")
    assert dropbox_fs.getsize("/d/Notes.paper.md") == len("changed")
    assert dropbox_fs.readtext("/d/Notes.paper.md") == "changed"
    assert export_calls(documents) == 2


def test_a_document_is_exported_by_its_id_where_dropbox_takes_no_rev(
    documents: Emulator, open_dropbox: Callable[..., DropboxFS]
) -> None:
    documents.control.options(export_by_rev=False)
    dropbox_fs = open_dropbox(cache_ttl_seconds=300.0, change_feed=False)
    assert dropbox_fs.readtext("/d/Plan.papert.md") == "a template"
    assert dropbox_fs.exists("/d/Notes.paper.md")
    documents.control.make_paper("/d/Notes.paper", "another revision than the one that is known")
    with pytest.raises(fs.errors.ResourceNotFound):
        dropbox_fs.readtext("/d/Notes.paper.md")


def test_an_export_is_checked_and_bounded(
    documents: Emulator, dropbox_fs: DropboxFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents.control.fault("files/export", "corrupt_body")
    assert dropbox_fs.readtext("/d/Notes.paper.md") == TEXT
    monkeypatch.setattr(downloads, "LARGEST_EXPORT_BYTES", 5)
    with pytest.raises(fs.errors.Unsupported, match="larger than"):
        dropbox_fs.readbytes("/d/Letter.gdoc.docx")


def test_names_alone_cost_no_export(documents: Emulator, dropbox_fs: DropboxFS) -> None:
    dropbox_fs.listdir("/d")
    assert dropbox_fs.exists("/d/Notes.paper.md")
    assert dropbox_fs.isfile("/d/Notes.paper.md")
    assert not dropbox_fs.exists("/d/Notes.paper.html")
    assert not dropbox_fs.exists("/d/Other.paper.md")
    assert dropbox_fs.cached_info("/d/Notes.paper.md", ["details"]) is None
    assert dropbox_fs.cached_listing("/d", ["details"]) is None
    assert "Notes.paper.md" in [info.name for info in dropbox_fs.cached_listing("/d") or ()]
    assert export_calls(documents) == 0


def test_the_own_name_works_too(documents: Emulator, dropbox_fs: DropboxFS) -> None:
    assert dropbox_fs.readtext("/d/Notes.paper") == TEXT
    assert dropbox_fs.getsize("/d/Notes.paper") == len(TEXT.encode())


@pytest.mark.parametrize("formats", [("html", "nonsense"), "nonsense, HTML"])
def test_the_format_can_be_chosen(
    documents: Emulator, open_dropbox: Callable[..., DropboxFS], formats: str | tuple[str, ...]
) -> None:
    chosen = open_dropbox(export=formats)
    assert sorted(chosen.listdir("/d")) == ["Letter.gdoc.docx", "Notes.paper.html", "Plan.papert.html", "a.txt"]
    assert chosen.readtext("/d/Notes.paper.html").startswith("<html>")
    assert chosen.readtext("/d/Notes.paper.html") != TEXT


def test_documents_as_they_are(documents: Emulator, open_dropbox: Callable[..., DropboxFS]) -> None:
    as_is = open_dropbox(documents="as_is")
    assert sorted(as_is.listdir("/d")) == ["Letter.gdoc", "Notes.paper", "Plan.papert", "a.txt"]
    assert not as_is.exists("/d/Notes.paper.md")
    with pytest.raises(fs.errors.Unsupported, match="cannot be downloaded"):
        as_is.openbin("/d/Notes.paper")
    assert as_is.getsize("/d/Notes.paper") == len(TEXT.encode())  # what Dropbox says, whatever that is
    assert export_calls(documents) == 0


def test_documents_can_be_hidden(documents: Emulator, open_dropbox: Callable[..., DropboxFS]) -> None:
    hidden = open_dropbox(documents="hide")
    assert hidden.listdir("/d") == ["a.txt"]
    assert list(hidden.walk.files("/")) == ["/d/a.txt"]
    hidden.remove("/d/a.txt")
    with pytest.raises(fs.errors.DirectoryNotEmpty):
        hidden.removedir("/d")
    with pytest.raises(fs.errors.CreateFailed, match="documents is one of export"):
        open_dropbox(documents="nonsense")


@pytest.mark.parametrize("path", ["/d/Notes.paper.md", "/d/Notes.paper"])
@pytest.mark.parametrize("mode", ["wb", "ab", "r+b"])
def test_documents_cannot_be_written(documents: Emulator, dropbox_fs: DropboxFS, path: str, mode: str) -> None:
    uploads = documents.control.calls()["files/upload"]
    with pytest.raises(fs.errors.ResourceReadOnly, match="Paper document can be edited in Dropbox only") as caught:
        dropbox_fs.openbin(path, mode)
    assert caught.value.path == path
    assert "Paper" in caught.value.reason  # type: ignore[attr-defined]
    with pytest.raises(fs.errors.FileExists):
        dropbox_fs.openbin(path, "xb")
    assert documents.control.calls()["files/upload"] == uploads


def test_documents_are_not_replaced_in_bulk(documents: Emulator, dropbox_fs: DropboxFS) -> None:
    names = ["/d/Notes.paper.md", "/d/Notes.paper", "/d/new.txt"]
    files = [(name, lambda: io.BytesIO(b"new"), 3, None) for name in names]
    errors = dict(dropbox_fs.upload_files(files))
    assert [isinstance(errors[number], fs.errors.ResourceReadOnly) for number in range(3)] == [True, True, False]
    assert documents.control.read("/d/new.txt") == b"new"
    assert dropbox_fs.readtext("/d/Notes.paper.md") == TEXT


def test_documents_are_moved_copied_and_removed_by_the_name_that_is_shown(
    documents: Emulator, dropbox_fs: DropboxFS
) -> None:
    dropbox_fs.move("/d/Notes.paper.md", "/d/Moved.paper.md")
    dropbox_fs.copy("/d/Moved.paper.md", "/Copy.paper")
    assert documents.control.tree() == {
        "/Copy.paper": len(TEXT.encode()),
        "/d": None,
        "/d/Letter.gdoc": 10,
        "/d/Moved.paper": len(TEXT.encode()),
        "/d/Plan.papert": 10,
        "/d/a.txt": 5,
    }
    assert dropbox_fs.readtext("/Copy.paper.md") == TEXT
    dropbox_fs.remove("/Copy.paper.md")
    assert not dropbox_fs.exists("/Copy.paper")
    with pytest.raises(fs.errors.Unsupported, match="keeps its extension"):
        dropbox_fs.move("/d/Moved.paper.md", "/d/Moved.md")
    with pytest.raises(fs.errors.ResourceReadOnly, match="edited in Dropbox only"):
        dropbox_fs.copy("/d/a.txt", "/d/Moved.paper.md", overwrite=True)
    assert dropbox_fs.exists("/d/Moved.paper.md")


def test_what_has_no_bytes_and_no_extension_is_moved_and_copied(documents: Emulator, dropbox_fs: DropboxFS) -> None:
    documents.control.make_google_doc("/Form.gdoc", b"")
    documents.control.move("/Form.gdoc", "/Form")
    dropbox_fs.copy("/Form", "/Copy")
    dropbox_fs.move("/Form", "/Moved")
    assert {"Copy", "Moved"} <= {path.strip("/") for path in documents.control.tree()}


def test_a_real_file_keeps_its_name(documents: Emulator, open_dropbox: Callable[..., DropboxFS]) -> None:
    documents.control.write("/d/Notes.paper.md", b"a file of its own")
    dropbox_fs = open_dropbox()
    assert sorted(dropbox_fs.listdir("/d")) == [
        "Letter.gdoc.docx",
        "Notes.paper",
        "Notes.paper.md",
        "Plan.papert.md",
        "a.txt",
    ]
    assert dropbox_fs.readbytes("/d/Notes.paper.md") == b"a file of its own"
    assert dropbox_fs.readtext("/d/Notes.paper") == TEXT


def test_what_dropbox_does_not_export_is_listed_and_says_why(documents: Emulator, dropbox_fs: DropboxFS) -> None:
    documents.control.restrict("/d/Notes.paper")
    shown = {info.name: info.size for info in dropbox_fs.scandir("/d", ["details"])}
    assert shown["Notes.paper.md"] == 0
    assert shown["Letter.gdoc.docx"] == 10
    with pytest.raises(fs.errors.PermissionDenied, match="restricted"):
        dropbox_fs.readbytes("/d/Notes.paper.md")


def test_no_hash_is_told_of_what_is_exported(documents: Emulator, dropbox_fs: DropboxFS) -> None:
    info = dropbox_fs.getinfo("/d/Notes.paper.md", ["details", "dropbox"])
    assert info.get("dropbox", "content_hash") is None
    assert info.get("dropbox", "export") == {"format": "html", "options": ["html", "markdown"]}
    with pytest.raises(fs.errors.UnsupportedHash):
        dropbox_fs.hash("/d/Notes.paper.md", "dropbox")
    with pytest.raises(fs.errors.Unsupported, match="cannot be downloaded"):
        dropbox_fs.geturl("/d/Notes.paper.md")
    assert dropbox_fs.geturl("/d/Notes.paper.md", "share").startswith("https://")
