"""What was acknowledged and is not in the cloud yet, as a plain model; and what may become of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sftp_gateway.files.folding import is_at_or_below, moved

if TYPE_CHECKING:
    from tests.sftp_gateway.write_back.delivering_cloud import Node
    from tests.sftp_gateway.write_back.delivering_process import Process
    from tests.sftp_gateway.write_back.delivering_world import World


@dataclass(eq=False)
class Version:
    """A version that was acknowledged. `over`: what it may replace, nothing, that content, or (None) anything."""

    content: bytes
    over: str | bytes | None
    times: set[int] = field(default_factory=set)  # which it may carry; any where empty


@dataclass(eq=False)
class Operation:
    """What a session has asked for and has no answer of yet; it counts from when `apply` is done."""

    name: str
    process: Process
    keys: set[str]
    apply: Callable[[], None]
    happened: Callable[[], bool]
    is_applied: bool = False

    def count(self) -> None:
        if not self.is_applied:
            self.is_applied = True
            self.apply()

    def count_if_it_happened(self) -> None:
        if not self.is_applied and self.happened():
            self.count()


class Model:
    """The versions that wait, by key and in order; those that failed; directories that wait."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.pending: dict[str, list[Version]] = {}
        self.failed: list[Version] = []
        self.before: dict[bytes, list[Version]] = {}  # what waited when a content was closed that may go through
        self.known_failed: set[int] = set()  # rows
        self.directories: set[str] = set()
        self.arrived: set[tuple[bytes, str]] = set()  # contents, and at which key

    def find(self, content: bytes, key: str) -> int | None:
        for number, version in enumerate(self.pending.get(key, [])):
            if version.content == content:
                return number
        return None

    # -- what the storage tells

    def through(self, key: str, content: bytes, there: Node | None, by: str) -> None:
        """A session's own commit, which waits for nothing: so nothing may wait there."""
        self.sync_failed()
        waits = [version for version in self.pending.get(key, ()) if version in self.before.get(content, (version,))]
        assert not waits, f"{content!r} overtakes what waits at {key}"
        self.check_over(key, content, self.world.overs.get(content) if by == "plain" else None, there)
        self.arrived.add((content, key))

    def delivered(self, key: str, content: bytes, there: Node | None, modified: int) -> None:
        at = self.find(content, key)
        if at is None and not self.world.traits["staging"] and (content, key) in self.arrived:
            return  # its answer was lost
        if at is None:
            for operation in self.world.in_progress:
                operation.count_if_it_happened()
            at = self.find(content, key)
        if at:
            self.sync_failed()
            at = self.find(content, key)
        if at is None:
            self.sync_failed()
            failed = [version for version in self.failed if version.content == content]
            assert failed, f"{content!r} is delivered to {key}, where nobody wants it"
            self.world.say("  late, though it had failed")
            return
        assert at == 0, f"{content!r} is delivered to {key} before {self.pending[key][0].content!r}"
        version = self.pending[key].pop(0)
        self.check_over(key, content, version.over, there)
        is_touched = any(each.name.startswith("touches") and key in each.keys for each in self.world.in_progress)
        times = version.times if not is_touched else ()
        assert not times or modified in times, f"{key} has time {modified}, not {times}"
        self.arrived.add((content, key))

    def check_over(self, key: str, content: bytes, over: str | bytes | None, there: Node | None) -> None:
        if over is None or (there is not None and there.content == content):
            return
        found = there.content if there is not None else ""
        assert found == over, f"{content!r} replaces {found!r} at {key}, and not {over!r}"

    # -- what the journal tells

    def sync_failed(self) -> None:
        """Take over what the journal says has failed, if there was a reason."""
        for key, rows in self.world.rows().items():
            for row in rows:
                if not row.failed:
                    self.known_failed.discard(row.id)
                elif row.id not in self.known_failed:
                    self.known_failed.add(row.id)
                    content = self.world.content(row)
                    waited_at = [key, *self.pending]  # it may have gone along with its directory
                    for each in waited_at:
                        at = self.find(content, each)
                        if at is not None:
                            self.world.say(f"  {content!r} has failed at {each}: {row.reason}")
                            self.failed.append(self.pending[each].pop(at))
                            break

    def check(self) -> None:
        """Compare with the journal: what waits is there, in order, and nothing else is."""
        self.sync_failed()
        rows = self.world.rows()
        for key in {*rows, *self.pending}:
            found = [self.world.content(row) for row in rows.get(key, ()) if not row.failed]
            expected = [version.content for version in self.pending.get(key, ())]
            unknown = found[: len(found) - len(expected)]
            assert found[len(unknown) :] == expected, f"at {key} wait {found}, not {expected}"
            for content in unknown:
                assert (content, key) in self.arrived, f"{content!r} waits at {key}, and nobody wants it"
        kept = [self.world.content(row) for each in rows.values() for row in each]
        for version in self.failed:
            assert version.content in kept, f"{version.content!r} had failed, and is gone"
        waiting = {each.key for each in self.world.eye.directories.all()}
        for key in self.directories - waiting:
            in_its_place = any(is_at_or_below(key, other) for other in self.world.others_files)
            assert in_its_place, f"{key} waits no more, and was not made"
            self.directories.remove(key)

    # -- what sessions do

    def rename(self, old: str, new: str, *, replace: bool) -> None:
        for key in [key for key in self.pending if is_at_or_below(key, old)]:
            versions = self.pending.pop(key)
            for version in versions if replace else ():
                version.over = None
            self.pending.setdefault(moved(key, old, new), []).extend(versions)

    def forget_failed(self) -> None:
        """Let go of what had failed and is not in the journal any more, as somebody has asked for that."""
        kept = [self.world.content(row) for each in self.world.rows().values() for row in each if row.failed]
        self.failed = [version for version in self.failed if version.content in kept]
