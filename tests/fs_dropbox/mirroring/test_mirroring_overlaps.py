"""No folder is mirrored into itself: whichever name, connection or root leads there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fs import errors
from fs.base import FS
from fs.info import Info
from fs.osfs import OSFS

from fs_dropbox import DropboxFS
from fs_dropbox.emulator import Emulator
from fs_dropbox.mirroring.inventory import Inventory
from fs_dropbox.mirroring.mirror import Mirror
from fs_dropbox.mirroring.transfer import Place
from tests.fs_dropbox.mirroring.mirrored import FoldingFS, run


def test_a_folder_is_known_to_be_inside_another_by_whatever_name(source: FS, local: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(local)
    with OSFS(str(tmp_path / "link")) as link, OSFS(str(local / "sub")) as inner:
        for one, other in ((link, inner), (inner, link), (link, source)):
            with pytest.raises(errors.OperationFailed, match="inside"):
                run(one, other, delete=True)
    folding = FoldingFS()
    folding.makedirs("Docs/sub")
    with pytest.raises(errors.OperationFailed, match="inside"):
        Mirror(Place(folding, "/Docs"), Place(folding, "/docs/Sub")).run()


@pytest.mark.parametrize(
    ("inner", "outer"), [("/backup", "/"), ("/backup/sub", "/backup"), ("/backup", "/backup"), ("/", "/")]
)
def test_a_folder_is_known_to_be_inside_another_through_another_connection(
    emulator: Emulator, open_dropbox: Callable[..., DropboxFS], inner: str, outer: str
) -> None:
    emulator.control.seed("/backup/sub")
    emulator.control.write("/kept", b"x")
    one, two = open_dropbox(), open_dropbox()
    for source, target in ((Place(one, inner), Place(two, outer)), (Place(one, outer), Place(two, inner))):
        with pytest.raises(errors.OperationFailed, match="inside"):
            Mirror(source, target, delete=True).run()
    assert set(emulator.control.tree()) == {"/backup", "/backup/sub", "/kept"}


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize(("source", "target"), [("/", "/new"), ("/", "/a/b/c/new/er"), ("/a/b", "/a/b/new")])
def test_what_is_not_there_yet_is_known_to_be_inside_the_source_through_another_connection(
    emulator: Emulator, open_dropbox: Callable[..., DropboxFS], source: str, target: str, dry_run: bool
) -> None:
    emulator.control.write("/a/b/f", b"x")
    one, two = open_dropbox(), open_dropbox()
    with pytest.raises(errors.OperationFailed, match="inside"):
        Mirror(Place(one, source), Place(two, target), dry_run=dry_run).run()
    assert set(emulator.control.tree()) == {"/a", "/a/b", "/a/b/f"}
    assert Mirror(Place(one, "/a"), Place(two, "/new")).run().copied == 1


def test_a_folder_that_is_a_root_elsewhere_is_known_to_be_inside_another(
    emulator: Emulator, open_dropbox: Callable[..., DropboxFS]
) -> None:
    emulator.control.write("/shared/sub/f", b"x")
    root = emulator.control.share_folder("/shared")
    account, shared = open_dropbox(), open_dropbox(root=root)
    for source, target in ((account, shared), (shared, account)):
        with pytest.raises(errors.OperationFailed, match="inside"):
            Mirror(Place(source), Place(target), delete=True).run()
    with pytest.raises(errors.OperationFailed, match="inside"):
        Mirror(Place(account), Place(shared, "/new")).run()
    assert set(emulator.control.tree()) == {"/shared", "/shared/sub", "/shared/sub/f"}


def test_accounts_that_share_a_folder_are_two() -> None:
    sharing = {"id": "id:shared", "sharing": {"shared_folder_id": "1"}}
    shared = Info({"basic": {"name": "shared", "is_dir": True}, "dropbox": sharing})
    ann, ben = Inventory(), Inventory()
    for root in (ann, ben):
        root.add("shared", shared)
    assert not ann.is_inside(ben)
    assert not ben.is_inside(ann)
