"""What the package offers: its names, and types by which a checked program finds all that a DropboxFS can do."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, Self, get_overloads, get_type_hints

import pytest

import fs_dropbox
from fs_dropbox import DropboxFS
from fs_dropbox.filesystem.subfolder import ClosingDropboxSubFS, DropboxSubFS
from tests.root import ROOT


def test_package_offers_what_it_says_and_its_modules_only() -> None:
    public = {name for name in dir(fs_dropbox) if not name.startswith("_") and name not in fs_dropbox.__all__}
    foreign = {name for name in public if not getattr(fs_dropbox, name).__name__.startswith("fs_dropbox.")}
    assert not foreign


def test_the_sdk_is_imported_where_it_is_needed() -> None:
    """It takes half a second: a Ctrl-C then was a traceback, and the emulator waited for nothing."""
    program = "import sys, fs_dropbox.emulator.emulator, fs_dropbox.cli; assert 'dropbox' not in sys.modules; "
    program += "import fs_dropbox; fs_dropbox.VersionConflict; assert hasattr(fs_dropbox, 'nothing') is False"
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, cwd=ROOT, timeout=60)


@pytest.mark.parametrize("kind", [DropboxFS, DropboxSubFS, ClosingDropboxSubFS])
def test_types_tell_what_a_with_block_and_a_folder_can_do(kind: Any) -> None:
    assert get_type_hints(kind.__enter__)["return"] is Self
    assert get_type_hints(get_overloads(kind.opendir)[0])["return"] is DropboxSubFS


@pytest.mark.parametrize("name", ["makedir", "makedirs"])
def test_types_tell_what_a_made_folder_can_do(name: str) -> None:
    assert get_type_hints(getattr(DropboxFS, name))["return"] is DropboxSubFS
