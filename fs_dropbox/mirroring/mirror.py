"""`Mirror`: make one folder hold what another one holds, moving only what differs. Knows no terminal."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Final, Literal, TypeVar

from fs import errors
from fs.path import isparent, normpath

from fs_dropbox import paths
from fs_dropbox.error_table import NoAccess
from fs_dropbox.mirroring.inventory import Inventory, Node, exclusion, surroundings, take_inventory
from fs_dropbox.mirroring.plan import Planner
from fs_dropbox.mirroring.steps import Action, Observer, Step, Summary
from fs_dropbox.mirroring.transfer import (
    GrownError,
    Place,
    StoppedError,
    copy_file,
    have_equal_hashes,
    remove,
    remove_abandoned,
    snapshot,
)
from fs_dropbox.pool import Pool

DEFAULT_WORKERS: Final = 16
# A file that waits for a round trip costs nothing but a thread, and uploads that wait together share their calls.
SMALL_BYTES: Final = 128 * 1024
SMALL_UPLOADS: Final = 256
SMALL_DOWNLOADS: Final = 48
_T = TypeVar("_T")
OVERLAP: Final = "one of the folders is inside the other"
# No later file would fare better; what is equal is skipped when the command is run again.
FATAL: Final = (NoAccess, errors.InsufficientStorage, errors.RemoteConnectionError, errors.OperationTimeout)


@dataclass(eq=False, repr=False)
class Mirror:
    """One run. Owns its threads for the time of run(); `stop` ends it from any thread or signal handler."""

    source: Place
    target: Place
    _: KW_ONLY
    delete: bool = False
    """Remove from the target what the source does not have; never after a failure to list the source, and at the end
    only if nothing has failed before that could be tried."""
    dry_run: bool = False
    """Change nothing, and tell what would be."""
    compare: Literal["content", "quick"] = "content"
    """"content" compares size and content; "quick" trusts equal size and time to the second, and compares contents
    where only the times differ: Dropbox takes no new time for what it has."""
    exclude: Iterable[str] = ()
    """Patterns of names, or of paths where they have a slash: left out of both sides, with what is below."""
    replace: bool = True
    """False leaves files alone that the target has, whatever they hold."""
    workers: int | None = None
    """Files at once; by default 16, and more of small ones."""
    observer: Observer = field(default_factory=Observer)
    break_off: Callable[[], None] | None = None
    """Ends what the filesystems are doing, such as by closing them; called when run() is interrupted, which otherwise
    waits for the calls under way."""
    stop: threading.Event = field(default_factory=threading.Event, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    # guarded by _lock
    _summary: Summary = field(default_factory=Summary, init=False)

    @property
    def _at_once(self) -> int:
        return self.workers or DEFAULT_WORKERS

    @property
    def _small_at_once(self) -> int:
        return self.workers or (SMALL_UPLOADS if self.target.local_path is None else SMALL_DOWNLOADS)

    def run(self) -> Summary:
        """Mirror, and return what was done, failures included.

        Raises:
            fs.errors.FSError: the source is no folder, a side cannot be listed, or one is inside the other.
            StoppedError: `stop` was set.
        """
        self._check_places()
        with Pool(max(self._at_once, self._small_at_once, 2), "fs-dropbox-mirror") as pool:
            try:
                self._run(pool)
            except BaseException as error:
                self.stop.set()
                if isinstance(error, KeyboardInterrupt) and self.break_off is not None:
                    self.break_off()
                pool.shutdown(wait=True, cancel_futures=True)
                if not isinstance(error, StoppedError) or self._summary.ended_by is None:
                    raise
        return self._summary

    def _run(self, pool: Pool) -> None:
        is_excluded = exclusion(self.exclude)
        places = (self.source, self.target)
        inventories = [pool.submit(take_inventory, place, self.stop, is_excluded) for place in places]
        source = inventories[0].result()
        target = self._inventory_or_nothing(inventories[1], source)
        if source.is_inside(target) or target.is_inside(source):  # through another connection
            raise errors.OperationFailed(self.target.path, msg=OVERLAP)
        plan = Planner(source, target, self.target, delete=self.delete).plan()
        for step in plan.ignored:
            self._done(step)
        for step, error in plan.failures:
            self._failed(step, error)
        for node in [] if self.dry_run else plan.parts:
            remove_abandoned(self.target.at(node.path))
        moving = sum(node.size for node, old in plan.files if self._may_differ(node, old))
        with self._lock:
            self.observer.planned(moving)
        self._each(pool, plan.in_the_way, self._remove)
        self._make_folders(pool, plan.folders)
        self._settle_all(pool, plan.files)
        if len(self._summary.failures) == len(plan.failures):
            self._each(pool, plan.doomed, self._remove)
        elif plan.doomed and not self.stop.is_set():
            # What was renamed is there under its old name at least.
            some = f"{len(plan.doomed)} of what only the target has is kept, since not all could be copied"
            self._failed(Step(Action.DELETE, plan.doomed[0].path), errors.OperationFailed(msg=some))

    def _settle_all(self, pool: Pool, files: list[tuple[Node, Node | None]]) -> None:
        small = [pair for pair in files if pair[0].size <= SMALL_BYTES]
        large = [pair for pair in files if pair[0].size > SMALL_BYTES]
        if self._goes_in_bulk and len(small) > 1:
            self._settle_in_bulk(pool, small)
        else:
            self._each(pool, small, lambda pair: self._settle(*pair), at_once=self._small_at_once)
        self._each(pool, large, lambda pair: self._settle(*pair))

    def _inventory_or_nothing(self, inventory: Future[Inventory], source: Inventory) -> Inventory:
        try:
            found = inventory.result()
        except errors.ResourceNotFound:
            if (source.top or source.folders) and surroundings(self.target).is_inside(source):
                raise errors.OperationFailed(self.target.path, msg=OVERLAP) from None
            if not self.dry_run:
                self.target.filesystem.makedirs(self.target.path, recreate=True)
            return Inventory()
        for _, error in found.failures:
            raise error  # without knowing what the target has, nothing is safe
        return found

    def _check_places(self) -> None:
        source, target = self.source, self.target
        if source.local_path is not None and target.local_path is not None:
            one, other = os.path.realpath(source.local_path), os.path.realpath(target.local_path)
        elif source.filesystem is target.filesystem:
            one, other = normpath(source.path), normpath(target.path)
            if source.folds_case:
                one, other = paths.key(one), paths.key(other)
        else:
            return
        if isparent(one, other) or isparent(other, one):
            raise errors.OperationFailed(target.path, msg=OVERLAP)

    def _make_folders(self, pool: Pool, folders: list[Node]) -> None:
        """Make folders, the upper ones first, as an inventory has them."""
        by_depth: dict[int, list[Node]] = {}
        for node in folders:
            by_depth.setdefault(node.path.count("/"), []).append(node)
        for nodes in by_depth.values():
            self._each(pool, nodes, self._make_folder)

    def _make_folder(self, node: Node) -> None:
        step = Step(Action.FOLDER, node.path)
        try:
            if not self.dry_run:
                self.target.filesystem.makedir(self.target.at(node.path).path, recreate=True)
        except (errors.FSError, OSError) as error:
            self._failed(step, error)
        else:
            self._done(step)

    @property
    def _goes_in_bulk(self) -> bool:
        """Whether the target takes many files at once; what it can copy from itself needs no bytes at all."""
        bulk = hasattr(self.target.filesystem, "upload_files")
        return bulk and not self.dry_run and self.source.filesystem is not self.target.filesystem

    def _settle_in_bulk(self, pool: Pool, files: list[tuple[Node, Node | None]]) -> None:
        """Copy small files that the target does not have, many with one call."""
        wanted: list[tuple[Node, Node | None]] = []

        def compare(pair: tuple[Node, Node | None]) -> None:
            if not self._has(*pair):
                wanted.append(pair)

        self._each(pool, files, compare)
        # Not in this thread, whose Ctrl-C would wait for the calls under way before it breaks them off.
        grown = pool.submit(self._upload, wanted).result()
        self._each(pool, grown, lambda pair: self._settle(*pair))

    def _upload(self, wanted: list[tuple[Node, Node | None]]) -> list[tuple[Node, Node | None]]:
        """Upload what is wanted; return what is not small any more."""
        grown: list[tuple[Node, Node | None]] = []
        source, target = self.source, self.target
        items = (
            (target.at((old or node).path).path, partial(snapshot, source.at(node.path)), node.size, node.modified)
            for node, old in wanted
            if not self.stop.is_set()
        )
        with contextlib.closing(target.filesystem.upload_files(items)) as results:  # type: ignore[attr-defined]
            for index, error in results:
                # After a failure that ends the run it is still told what became of those that were under way.
                if self.stop.is_set() and self._summary.ended_by is None:
                    break
                node, old = wanted[index]
                step = _copying(node, old)
                if isinstance(error, GrownError):
                    grown.append((node, old))
                elif error is not None:
                    self._failed(step, error)
                else:
                    self._advanced(node.size)
                    self._done(step)
        if self.stop.is_set():
            raise StoppedError
        return grown

    def _settle(self, node: Node, old: Node | None) -> None:
        """Copy a file unless the target has it."""
        if self._has(node, old):
            return
        step = _copying(node, old)
        try:
            if self.dry_run:
                self._advanced(node.size)
            else:
                copied = copy_file(
                    self.source.at(node.path),
                    self.target.at((old or node).path),
                    advanced=self._advanced,
                    stop=self.stop,
                )
                step = Step(Action.COPY, node.path, copied, step.reason)
        except (errors.FSError, OSError) as error:
            self._failed(step, error)
        else:
            self._done(step)

    def _has(self, node: Node, old: Node | None) -> bool:
        """Tell whether nothing is left to do about a file: the target has it, or that cannot be found out."""
        if old is None:
            return False
        try:
            if self._may_differ(node, old):
                if not self._is_same_content(node, old):
                    return False
                self._advanced(node.size)
            self._done(Step(Action.SKIP, node.path, node.size))
        except (errors.FSError, OSError) as error:
            self._failed(_copying(node, old), error)
        return True

    def _may_differ(self, node: Node, old: Node | None) -> bool:
        """Return False when what the listings say suffices to know that the target has this file."""
        if old is not None and not self.replace:
            return False
        if old is None or node.size != old.size:
            return True
        if node.content_hash and old.content_hash:
            return node.content_hash != old.content_hash
        if node.modified is None or old.modified is None:
            return True
        if self.compare == "quick":
            return abs((node.modified - old.modified).total_seconds()) >= 1
        if not node.content_hash and not old.content_hash:
            # Neither side tells a hash: as fs.mirror, trust the times.
            return node.modified > old.modified
        return True

    def _is_same_content(self, node: Node, old: Node) -> bool:
        """Compare by reading the side that tells no hash."""
        if node.size != old.size:
            return False
        source, target = self.source.at(node.path), self.target.at(old.path)
        return have_equal_hashes(source, node.content_hash, target, old.content_hash, stop=self.stop)

    def _remove(self, old: Node) -> None:
        step = Step(Action.DELETE, old.path, old.size)
        try:
            if not self.dry_run:
                with contextlib.suppress(errors.ResourceNotFound):
                    remove(self.target.at(old.path), is_folder=old.is_folder)
        except (errors.FSError, OSError) as error:
            self._failed(step, error)
        else:
            self._done(step)

    def _each(self, pool: Pool, items: Iterable[_T], work: Callable[[_T], None], *, at_once: int | None = None) -> None:
        """Do the work for every item in the pool, so many at once; raises what a work raises."""
        limit = at_once or self._at_once
        running: set[Future[None]] = set()
        for item in items:
            if len(running) >= limit:
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
            if self.stop.is_set():
                raise StoppedError
            running.add(pool.submit(work, item))
        for future in running:
            future.result()

    def _advanced(self, size: int) -> None:
        with self._lock:
            self.observer.advanced(size)

    def _done(self, step: Step) -> None:
        with self._lock:
            summary = self._summary
            if step.action is Action.COPY:
                summary.copied += 1
                summary.copied_bytes += step.size
            elif step.action is Action.FOLDER:
                summary.folders += 1
            elif step.action is Action.DELETE:
                summary.deleted += 1
            elif step.reason:
                summary.ignored += 1
            else:
                summary.skipped += 1
                summary.skipped_bytes += step.size
            self.observer.done(step)

    def _failed(self, step: Step, error: Exception) -> None:
        with self._lock:
            if self.stop.is_set() and (self._summary.ended_by is None or isinstance(error, FATAL)):
                return  # a consequence of the end
            self._summary.failures.append((step, error))
            self.observer.failed(step, error)
            if isinstance(error, FATAL):
                self._summary.ended_by = self._summary.ended_by or error
                self.stop.set()


def _copying(node: Node, old: Node | None) -> Step:
    return Step(Action.COPY, node.path, node.size, "new" if old is None else "differs")
