"""Paths and keys; the names that Dropbox refuses, refused with the rule."""

from __future__ import annotations

import pytest

from fs_dropbox import paths


@pytest.mark.parametrize(("path", "api_path"), [("/", ""), ("/a", "/a"), ("/A/b c", "/A/b c")])
def test_api_paths(path: str, api_path: str) -> None:
    assert paths.to_api(path) == api_path


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/", ""),
        ("", ""),
        ("/Folder/FILE.txt", "/folder/file.txt"),
        ("/Cafe\u0301", "/caf\u00e9"),  # NFD comes back NFC
        ("/\u03a3\u03a3\u03a3", "/\u03c3\u03c3\u03c3"),  # no final sigma
        ("/\u00c4\u00d6", "/\u00e4\u00f6"),
    ],
)
def test_keys(path: str, key: str) -> None:
    assert paths.key(path) == key


def test_family() -> None:
    assert paths.parent("/a/b/c") == "/a/b"
    assert paths.parent("/a") == ""
    assert paths.name("/a/b") == "b"
    assert paths.join("", "a") == "/a"
    assert paths.is_under("/a/b", "/a")
    assert paths.is_under("/a", "/a")
    assert paths.is_under("/a", "")
    assert not paths.is_under("/ab", "/a")


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("a\\b", "backslash"),
        ("a\0b", "null"),
        ("a\x7f", "delete"),
        ("a ", "space"),
        ("\ud800", "Unicode"),
        ("x" * 256, "255"),
        ("\u263a" * 256, "255"),
        ("\U0001f600" * 128, "255"),
        ("Desktop.ini", "reserves"),
        ("Icon\r", "reserves"),
        (".DS_Store", "reserves"),
    ],
)
def test_refused_names(name: str, word: str) -> None:
    reason = paths.check_path(f"/fine/{name}/fine")
    assert reason is not None
    assert word in reason


@pytest.mark.parametrize(
    "name", ["a", " a", "a.", ".a", "...", "x" * 255, "\u263a" * 255, "\U0001f600" * 127, 'a<>:"|?*', "a\nb", "con"]
)
def test_accepted_names(name: str) -> None:
    assert paths.check_path(f"/{name}") is None


def test_the_root_is_accepted() -> None:
    assert paths.check_path("/") is None
