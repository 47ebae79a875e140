"""What sessions do at random where files are delivered later, and what a plain model says of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fs.path import basename, dirname, join

from sftp_gateway.files.folding import fold_path, is_at_or_below
from sftp_gateway.files.handles import WriteHandle
from sftp_gateway.files.tree import TreeView
from sftp_gateway.sftp.packets import Attributes, OpenFlag
from sftp_gateway.sftp.status import NotAtOnceError
from sftp_gateway.write_back.journal_rows import Pending
from tests.sftp_gateway.write_back.delivering_acting import REFUSALS, Acting
from tests.sftp_gateway.write_back.delivering_looking import FOLDERS
from tests.sftp_gateway.write_back.delivering_model import Version
from tests.sftp_gateway.write_back.delivering_process import Process

W, R, A, C, T, X = (
    OpenFlag.WRITE,
    OpenFlag.READ,
    OpenFlag.APPEND,
    OpenFlag.CREAT,
    OpenFlag.TRUNC,
    OpenFlag.EXCL,
)


@dataclass(eq=False)
class Upload:
    """A file that is being written."""

    process: Process
    view: TreeView
    version: Version = field(default_factory=lambda: Version(b"", None))
    base: bytes | None = None
    handle: WriteHandle | None = None

    def drop(self) -> None:
        """Have nothing left of it."""
        if self.handle is not None:
            self.handle.abort()
            drafts = self.process.tree.store.drafts
            drafts.let_go(self.handle.draft, "it was given up")


class Sessions(Acting):
    """Each step is one session's."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__(folder, seed)
        self.uploads: list[Upload] = []

    # -- files

    def put(self) -> None:
        process, view = self.somebody()
        path, content = self.some_path(), self.some_bytes()
        flags = self.chance.choice([W | C | T, W | C | T, W | C | X if self.traits["staging"] else W | C | T])
        if self.chance.random() < 0.1 and self.traits["staging"] and not flags & X:  # else it is taken for sent again
            same = self.shown().get(fold_path(path)) or content
            waits = any(self.content(row) == same for rows in self.rows().values() for row in rows)
            content = content if waits else same
        self.write(process, view, path, flags, lambda _: content)

    def change(self) -> None:
        if not self.traits["staging"]:
            return  # a change of what has arrived and nobody knows is taken for a conflict
        process, view = self.somebody()
        path, more = self.some_path(), self.some_bytes()
        append = self.chance.random() < 0.5
        flags = (W | A if append else W) | self.chance.choice([0, C])

        def changed(old: bytes) -> bytes:
            return old + more if append else more + old[len(more) :]

        if process.tree.store.overlay.top(path) is None:  # else it would be gone on with
            self.write(process, view, path, flags, changed)

    def write(self, process: Process, view: TreeView, path: str, flags: int, make: Callable[[bytes], bytes]) -> None:
        """Open a file, write it, and close it now or later."""
        self.say(f"  {process.name} opens {path} {shown(flags)}")
        upload = Upload(process, view)
        with self.acting("session", process):
            try:
                self.begin(upload, path, flags, make)
            except REFUSALS as error:
                self.say(f"  refused: {type(error).__name__} {error}")
                upload.drop()
                return
        if process.dead:
            return
        if self.chance.random() < 0.15:
            self.uploads.append(upload)
        else:
            self.finish_upload(upload)

    def begin(self, upload: Upload, path: str, flags: int, make: Callable[[bytes], bytes]) -> None:
        handle = upload.view.open(path, flags, Attributes())
        assert isinstance(handle, WriteHandle)
        upload.handle, draft = handle, handle.draft
        base = draft.read(0, 10_000) if draft.base.is_there else None
        upload.base = base
        old = b"" if flags & (T | X) else base or b""
        upload.version.content = content = make(old)
        self.say(f"  over {base!r} {draft.base.version}: {content!r}")
        handle.write(0, content[len(old) :] if flags & A else content)
        if self.chance.random() < 0.2:
            upload.version.times = {self.chance.randrange(10**6)}
            handle.set_modified(float(next(iter(upload.version.times))))

    def finish(self) -> None:
        """Close a file that was opened some time ago, whatever has happened since."""
        if self.uploads:
            self.finish_upload(self.uploads.pop(self.chance.randrange(len(self.uploads))))

    def finish_upload(self, upload: Upload) -> None:
        process, version, handle = upload.process, upload.version, upload.handle
        if process.dead or handle is None:
            return
        draft = handle.draft
        key = fold_path(draft.path)
        version.over = "" if draft.exclusive else upload.base  # whoever creates plainly replaces what came since
        told = str(draft.base.version)
        row = int(told.removeprefix("pending:")) if told.startswith("pending:") else None
        before = {each.id for each in self.rows().get(key, ())}

        def mine() -> list[Pending]:
            rows = [each for each in self.rows().get(key, ()) if not each.failed and each.id not in before]
            return [each for each in rows if self.content(each) == version.content]

        def work() -> None:
            self.overs[version.content] = version.over
            self.model.before[version.content] = [*self.model.pending.get(key, ())]
            try:
                try:
                    handle.close(at_once=True)
                except NotAtOnceError:
                    handle.close()
            except BaseException:
                if not process.dead:
                    upload.drop()
                raise

        def apply() -> None:
            found = mine()
            if not found:
                return  # it went through, and was told then
            self.model.sync_failed()
            queue = self.model.pending.setdefault(key, [])
            if upload.base is not None and queue:
                assert queue[-1].content == upload.base, f"{queue[-1].content!r} is overwritten by a change in place"
            if row is not None and not any(each.id == row for each in self.rows().get(key, ())):
                if queue:
                    version.over = queue.pop().over
                    if row in self.refused_rows and found[0].mode == "replace":
                        version.over = None  # the change of what had failed is of nothing that is there
                elif found[0].mode == "replace":
                    version.over = None
                self.model.forget_failed()
            elif row is not None:
                assert found[0].mode == "replace", found
                version.over = None
            elif found[0].mode == "replace":
                assert version.over is None, "it is forgotten what it may replace"
            queue.append(version)

        self.act(process, f"closes {draft.path}, {version.content!r}", work, apply, lambda: bool(mine()), draft.path)

    def touch(self) -> None:
        process, view = self.somebody()
        path, time = self.some_path(), self.chance.randrange(10**6)
        key = fold_path(path)

        def work() -> None:
            view.set_attributes(path, Attributes(mtime=time))

        self.act(process, f"touches {path} {time}", work, lambda: None, lambda: False, path)
        written = [each.version for each in self.uploads if each.handle and fold_path(each.handle.draft.path) == key]
        for version in (*self.model.pending.get(key, ()), *written):
            version.times = {time, *version.times} if version.times else set()

    # -- names

    def remove(self) -> None:
        process, view = self.somebody()
        path = self.some_path()
        key = fold_path(path)
        there = {self.content(row) for row in self.rows().get(key, ())}

        def apply() -> None:
            self.model.pending.pop(key, None)
            self.model.forget_failed()

        def happened() -> bool:
            self.model.sync_failed()
            rows = self.rows()
            waits = any(not row.failed for row in rows.get(key, ()))
            kept = {self.content(row) for each in rows.values() for row in each}
            is_dropped = bool(there.intersection(version.content for version in self.model.failed) - kept)
            return is_dropped or (bool(self.model.pending.get(key)) and not waits)

        done = self.act(process, f"removes {path}", lambda: view.remove(path), apply, happened, path)
        if done and not self.is_disturbed(path):
            assert not any(not row.failed for row in self.rows().get(key, ())), f"{path} still waits"
            node = self.cloud.find(path)
            is_others = node is None or node.content is None or node.content in self.others_contents
            assert is_others, f"{path} is still there"

    def rename(self) -> None:
        process, view = self.somebody()
        source, target = self.some_path(), self.some_path()
        if self.chance.random() < 0.1:
            target = join(dirname(source), basename(source).swapcase())
        self.rename_to(process, view, source, target, replace=self.chance.random() < 0.5)

    def rename_directory(self) -> None:
        process, view = self.somebody()
        source, target = self.some_path(FOLDERS), self.chance.choice((*FOLDERS, "/D", "/E", "/d/S"))
        self.rename_to(process, view, source, target, replace=self.chance.random() < 0.5)

    def rename_to(self, process: Process, view: TreeView, source: str, target: str, *, replace: bool) -> None:
        old, new = fold_path(source), fold_path(target)
        before = self.shown()
        is_odd = self.is_odd(source, before)
        failed = [*self.model.failed]

        def apply() -> None:
            self.model.sync_failed()
            if old == new:
                self.was_failed(old, new)
            else:
                self.model.pending.setdefault(new, [])
                self.was_failed(old, new)
                self.model.rename(old, new, replace=replace)
                self.model.forget_failed()

        def happened() -> bool:
            self.model.sync_failed()
            had_failed = {version.content for version in self.model.failed}
            found = [self.content(row) for row in self.rows().get(new, ()) if not row.failed]
            waits = any(not row.failed for row in self.rows().get(old, ()))
            if old == new:
                return bool(had_failed & set(found))
            return not waits and bool(self.model.pending.get(old) or had_failed & set(found))

        kind = "posix-rename" if replace else "rename"
        done = self.act(
            process,
            f"{kind} {source} {target}",
            lambda: view.rename(source, target, replace=replace),
            apply,
            happened,
            source,
            target,
        )
        if not done and replace and self.eye.directories.find(target) is None:
            self.model.directories.discard(new)  # an empty directory, removed to be replaced
        # What fails stays behind as failed; and nobody looks for what others put below what is to be made yet.
        is_sure = not is_odd and (before.get(old) is not None or failed == self.model.failed)
        has_arrived = (before.get(old), old) in self.model.arrived  # which nobody knew, and others may have changed it
        is_sure = is_sure and not has_arrived
        if done and old != new and old in before and is_sure and not self.is_disturbed(source, target):
            after = self.shown()
            expected = {new + key[len(old) :]: value for key, value in before.items() if is_at_or_below(key, old)}
            found = {key: value for key, value in after.items() if is_at_or_below(key, new)}
            left = {key: value for key, value in after.items() if is_at_or_below(key, old)}
            stays = [*self.others_contents, *(version.content for version in self.model.failed)]
            left = {key: value for key, value in left.items() if value not in (None, *stays)}
            if before[old] is not None:  # whatever others have put below what they take for a directory
                found, expected = {new: found.get(new)}, {new: before[old]}
            expected = {key: value for key, value in found.items() if value is None or value in stays} | expected
            assert not left, f"still there: {left}"
            assert found == expected, f"{found} instead of {expected}, with {self.rows()}"

    def was_failed(self, old: str, new: str) -> None:
        """What had failed is tried again under another name."""
        for row in [row for row in self.rows().get(new, ()) if not row.failed]:
            content = self.content(row)
            for version in [version for version in self.model.failed if version.content == content][:1]:
                self.model.failed.remove(version)
                self.model.pending.setdefault(old, []).append(Version(content, None, version.times))

    def mkdir(self) -> None:
        process, view = self.somebody()
        path = self.some_path(FOLDERS)
        key = fold_path(path)

        def apply() -> None:
            if self.eye.directories.find(path) is not None and self.cloud.find(path) is None:
                self.model.directories.add(key)

        done = self.act(
            process,
            f"mkdir {path}",
            lambda: view.mkdir(path),
            apply,
            lambda: self.eye.directories.find(path) is not None,
            path,
        )
        if done and not self.is_disturbed(path):
            node = self.cloud.find(path)
            is_made = node is not None and node.content is None
            assert is_made or self.eye.directories.find(path) is not None, f"{path} was not made"

    def rmdir(self) -> None:
        process, view = self.somebody()
        path = self.some_path(FOLDERS)
        key = fold_path(path)
        below = [other for other in self.shown() if is_at_or_below(other, key) and other != key]
        if self.eye.directories.find(path) is not None and self.cloud.below(path):
            self.others_files.add(key)  # nobody looks below what is to be made yet
            below = []

        def apply() -> None:
            self.model.directories.discard(key)

        def happened() -> bool:
            return key in self.model.directories and self.eye.directories.find(path) is None

        done = self.act(process, f"rmdir {path}", lambda: view.rmdir(path), apply, happened, path)
        if done and not self.is_disturbed(path):
            assert not below, f"{path} was removed with {below}"
            is_others = self.cloud.find(path) is not None and key in self.others_files
            assert key not in self.shown() or is_others, f"{path} is still there"

    def copy(self) -> None:
        process, _ = self.somebody()
        source, target = self.some_path(), self.some_path()
        overwrite = self.chance.random() < 0.5
        content = self.shown().get(fold_path(source))
        done = self.act(
            process,
            f"copies {source} {target}",
            lambda: process.fs.copy(source, target, overwrite=overwrite),
            lambda: None,
            lambda: False,
            target,
        )
        if done and not self.is_disturbed(source, target):
            assert self.shown().get(fold_path(target)) == content


def shown(flags: int) -> str:
    return "".join(letter for flag, letter in zip((W, R, A, C, T, X), "WRACTX", strict=True) if flags & flag)
