"""`Plan`: what has to be done to a folder so that it holds what another one holds. Changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

from fs import errors

from fs_dropbox.conventions import literal
from fs_dropbox.mirroring.inventory import EXCLUDED, NO_TEXT, Inventory, Node, key_of
from fs_dropbox.mirroring.steps import Action, Step
from fs_dropbox.mirroring.transfer import Place, is_part


@dataclass(slots=True)
class Plan:
    """Steps in their order, as far as they do not depend on contents; and what comes to nothing, with the reason."""

    in_the_way: list[Node] = field(default_factory=list)
    """To be removed before anything else, with what is below: something of another kind is to be there."""
    folders: list[Node] = field(default_factory=list)
    """To be made, upper ones first."""
    files: list[tuple[Node, Node | None]] = field(default_factory=list)
    """What the target shall have, and what it has of that name."""
    doomed: list[Node] = field(default_factory=list)
    """To be removed at the end, with what is below."""
    parts: list[Node] = field(default_factory=list)
    """Of transfers into the target: under way, or broken off."""
    ignored: list[Step] = field(default_factory=list)
    failures: list[tuple[Step, Exception]] = field(default_factory=list)


class Planner:
    """Compares two inventories. For one use in one thread."""

    def __init__(self, source: Inventory, target: Inventory, place: Place, *, delete: bool) -> None:
        """`place` is the target; `delete`: what only it has is to go, unless a part of the source is not known."""
        self._place = place
        self._key = key_of(place, target)
        self._source = source
        self._delete = delete and not source.failures
        self._is_held_back = delete and not self._delete
        self._plan = Plan()
        self._blocked: list[str] = []  # beginnings of keys that cannot come to be
        self._cleared: set[str] = set()
        self._have: dict[str, Node] = {}
        self._nameless: list[Node] = []
        self._holding: set[str] = set()  # keys of the target's folders in which something excluded is
        for node in target.nodes:
            if node.ignored == NO_TEXT:
                self._nameless.append(node)
            elif is_part(node.path) and place.local_path is not None:
                self._plan.parts.append(node)
            else:
                key = self._key(node.path)
                self._have[key] = node
                while node.ignored == EXCLUDED and (key := key.rpartition("/")[0]):
                    self._holding.add(key)

    def plan(self) -> Plan:
        """Return what is to be done."""
        plan = self._plan
        plan.failures += [(Step(Action.SKIP, path), error) for path, error in self._source.failures]
        wanted = self._wanted()
        self._clear_the_way(wanted)
        if self._delete:
            self._doom({self._key(node.path): node for node in self._source.nodes})
        plan.folders = [node for key, node in wanted.items() if node.is_folder and key not in self._have]
        plan.files = [(node, self._have.get(key)) for key, node in wanted.items() if not node.is_folder]
        return plan

    def _wanted(self) -> dict[str, Node]:
        """Return what the target shall have, without what it cannot."""
        candidates: dict[str, list[Node]] = {}
        for node in self._source.nodes:
            if node.ignored == EXCLUDED:
                continue
            if node.ignored or is_part(node.path):
                # What the target has under this name is left alone.
                reason = node.ignored or "what is left of a transfer that broke off"
                self._plan.ignored.append(Step(Action.SKIP, node.path, node.size, reason))
            else:
                candidates.setdefault(self._key(node.path), []).append(node)
        wanted: dict[str, Node] = {}
        for key, nodes in candidates.items():
            chosen = nodes[0] if len(nodes) == 1 else self._chosen(nodes, self._have.get(key))
            for node in nodes:
                error = self._refusal(node, chosen)
                if error is not None:
                    self._fail(node, error)
                    if node.is_folder and not chosen.is_folder:
                        self._blocked.append(key + "/")
                elif node is chosen:
                    wanted[key] = node
        return wanted

    @staticmethod
    def _chosen(nodes: list[Node], old: Node | None) -> Node:
        """Return which of several that the target cannot tell apart it is to have: what is most like what it has."""
        if old is None:
            return nodes[0]
        return max(nodes, key=lambda node: (node.is_folder == old.is_folder, node.path == old.path))

    def _refusal(self, node: Node, chosen: Node) -> errors.FSError | None:
        if node is not chosen:
            differs = "differs only in case, or in how accents are written"
            reason = f"{differs}, from {chosen.path}, which the target cannot tell apart"
            return errors.ResourceError(node.path, msg=literal(reason))
        try:
            self._place.filesystem.validatepath(self._place.at(node.path).path)
        except errors.FSError as error:
            return error
        return None

    def _doom(self, seen: dict[str, Node]) -> None:
        """Find what has to go, without what goes with its folder."""
        spared: set[str] = set()  # and what is below, for nobody looked there
        gone = set(self._cleared)
        for key, node in sorted(self._have.items()):  # folders come before what they hold
            folder = key.rpartition("/")[0]
            if folder in spared or (key in seen and seen[key].ignored) or node.ignored == EXCLUDED:
                spared.add(key)
            elif folder in gone:
                gone.add(key)
            elif key not in seen and key not in self._holding:
                gone.add(key)
                self._plan.doomed.append(node)
        for node in self._nameless:
            if self._key(node.path).rpartition("/")[0] not in spared | gone:
                error = errors.ResourceError(node.path, msg=literal(f"{NO_TEXT}: remove it by hand"))
                self._plan.failures.append((Step(Action.DELETE, node.path), error))

    def _clear_the_way(self, wanted: dict[str, Node]) -> None:
        """Where something of another kind is wanted than there is: have it removed with `delete`, else fail."""
        for key, node in list(wanted.items()):
            if any(key.startswith(folder) for folder in self._blocked):
                del wanted[key]
                continue
            old = self._have.get(key)
            if old is None or (old.is_folder == node.is_folder and not old.ignored):
                continue
            if self._delete and key not in self._holding:
                self._plan.in_the_way.append(old)
                for gone in [other for other in self._have if other == key or other.startswith(key + "/")]:
                    del self._have[gone]
                    self._cleared.add(gone)
                continue
            del wanted[key]
            if node.is_folder:
                self._blocked.append(key + "/")
            self._fail(node, errors.ResourceError(node.path, msg=literal(self._in_the_way(key, old))))

    def _in_the_way(self, key: str, old: Node) -> str:
        what = f"the target has a {'folder' if old.is_folder else 'file'} of this name"
        if old.ignored:
            what = f"in the target this is {old.ignored}"
        if key in self._holding:
            return f"{what}, which holds what is excluded"
        if self._is_held_back:
            return f"{what}; nothing is deleted, since not all of the source is known"
        return f"{what}; --delete would remove it"

    def _fail(self, node: Node, error: Exception) -> None:
        action = Action.FOLDER if node.is_folder else Action.COPY
        self._plan.failures.append((Step(action, node.path, node.size), error))
