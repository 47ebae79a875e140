"""What everybody is to see of files that are delivered at random, compared with what each process shows."""

from __future__ import annotations

from fs.path import dirname, join

from sftp_gateway.files.folding import fold_path
from tests.sftp_gateway.write_back.delivering_cloud import Node
from tests.sftp_gateway.write_back.delivering_process import Process
from tests.sftp_gateway.write_back.delivering_world import World

FILES = ("/a", "/b", "/d/a", "/d/b", "/e/a", "/d/s/a")
FOLDERS = ("/d", "/e", "/d/s")


class Looking(World):
    """Looks at everything through every process."""

    def shown(self) -> dict[str, bytes | None]:
        """Return what everybody is to see: files and (None) directories, by key."""
        found: dict[str, bytes | None] = {key: node.content for key, node in self.cloud.nodes.items()}
        for each in self.eye.directories.all():
            found[each.key] = None
        for key, rows in self.rows().items():
            live = [row for row in rows if not row.failed]
            failed = [row for row in rows if row.failed and not row.hidden]
            if live:
                found[key] = self.content(live[-1])
            elif failed and key not in found:
                found[key] = self.content(failed[-1])
        return found

    def check(self) -> None:
        self.model.check()
        shown = self.shown()
        is_calm, self.is_calm = self.is_calm, True
        for process in self.processes:
            for path in FILES + FOLDERS:
                self.check_path(process, path, shown)
            for folder in ("/", *FOLDERS):
                self.check_directory(process, folder, shown)
        self.is_calm = is_calm

    def check_path(self, process: Process, path: str, shown: dict[str, bytes | None]) -> None:
        key = fold_path(path)
        if self.is_odd(path, shown):
            return
        if key not in shown:
            assert not process.fs.exists(path), f"{path} is shown"
            return
        info = process.fs.getinfo(path, ["details"])
        content = shown[key]
        assert info.is_dir == (content is None), f"{path} is shown as another kind"
        if content is not None:
            assert info.size == len(content), f"{path} is shown with {info.size} bytes instead of {len(content)}"
            with process.fs.openbin(path, "r") as file:
                found = file.read()
            assert found == content, f"{path} reads {found!r} instead of {content!r}"

    def is_odd(self, path: str, shown: dict[str, bytes | None]) -> bool:
        """Tell whether others have put something where what waits has another kind, or removed what is above it."""
        keys = [fold_path(path)]
        while keys[-1] != "/":
            keys.append(dirname(keys[-1]))
        for key in keys:
            node: Node | None = self.cloud.nodes.get(key)
            if node is not None and key in shown and (node.content is None) != (shown[key] is None):
                return True
            if self.eye.directories.find(key) is not None and (node is not None or self.cloud.below(key)):
                return True  # nobody looks below what is to be made yet
            if key != keys[0] and key != "/" and shown.get(key, b"") is not None:
                return key in shown or keys[0] in shown
        return False

    def check_directory(self, process: Process, folder: str, shown: dict[str, bytes | None]) -> None:
        if self.is_odd(folder, shown) or (folder != "/" and shown.get(folder, b"") is not None):
            return
        expected = {key for key in shown if dirname(key) == folder}
        found = [info.name for info in process.fs.scandir(folder)]
        keys = [fold_path(join(folder, name)) for name in found]
        assert sorted(keys) == sorted(expected), f"{folder} lists {found} instead of {expected}"
