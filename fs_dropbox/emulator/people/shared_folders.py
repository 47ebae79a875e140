"""Shared folders: how a folder becomes a namespace of its own and an ordinary folder again, who has mounted it.

Knows no HTTP. Needs State.mutation().
"""

from __future__ import annotations

from typing import Any

from fs_dropbox.emulator.model.accounts import Account
from fs_dropbox.emulator.model.errors import PathLookupError, RouteError, WriteError, union
from fs_dropbox.emulator.model.mutations import check_subtree, create_folder
from fs_dropbox.emulator.model.tree import Entry, File, Folder, Namespace
from fs_dropbox.emulator.model.view import View
from fs_dropbox.emulator.people.mounting import (
    DISSOLVED,
    empty_into,
    free_name,
    home_of,
    mount_at_home,
    mount_of,
    set_access,
)
from fs_dropbox.emulator.service import Service


def access_error(tag: str) -> RouteError:
    """Return the error with a sharing.SharedFolderAccessError."""
    return RouteError(union("access_error", access_error=union(tag)))


def get(service: Service, account: Account, shared_folder_id: str) -> Namespace:
    """Return the shared folder of which the account is a member, or raise access_error."""
    namespace = service.state.namespaces.get(shared_folder_id)
    if namespace is None or not namespace.is_shared:
        raise access_error("invalid_id")
    if account.account_id not in namespace.members:
        raise access_error("not_a_member")
    return namespace


def folders_of(service: Service, account: Account) -> list[Namespace]:
    """Return the shared folders and team folders of which the account is a member, mounted or not."""
    namespaces = service.state.namespaces.values()
    return [n for n in namespaces if n.is_shared and account.account_id in n.members]


def share(service: Service, view: View, account: Account, path: str) -> Namespace:
    """Make a folder, created when missing, a namespace of its own that is mounted in its place."""
    folder = _folder_to_share(view, path)
    state = view.state
    namespace = state.add_namespace("shared_folder", folder.name, account.account_id)
    note_invitation(service, namespace, account)
    state.report_deleted(folder)  # as the service does: what follows is another namespace's
    empty_into(state, folder, namespace.root)
    folder.mount = namespace
    namespace.mounts.append(folder)
    state.touch(folder)
    return namespace


class AlreadySharedError(Exception):
    """The folder is shared already: bad_path/already_shared comes with its metadata."""

    def __init__(self, namespace: Namespace) -> None:
        super().__init__(namespace.id)
        self.namespace = namespace


def _bad_path(tag: str) -> RouteError:
    return RouteError(union("bad_path", bad_path=union(tag)))


def _folder_to_share(view: View, path: str) -> Folder:
    try:
        entry = view.find(path)
    except PathLookupError:
        return _folder_created(view, path)
    if isinstance(entry, File):
        raise _bad_path("is_file")
    assert isinstance(entry, Folder)
    if entry.mount is not None and entry.mount.is_shared:
        raise AlreadySharedError(entry.mount)
    if entry.parent is None or (entry.mount is not None and entry.mount.kind == "home"):
        raise _bad_path("invalid_path")
    if entry.mount is not None:
        raise _bad_path("is_app_folder")
    _check_place(view, entry.parent)
    kinds = {node.mount.kind for node in entry.nodes() if isinstance(node, Folder) and node.mount is not None}
    if kinds:
        raise _bad_path("contains_app_folder" if kinds == {"app_folder"} else "contains_shared_folder")
    check_subtree(view, entry)
    return entry


def _folder_created(view: View, path: str) -> Folder:
    try:
        _check_place(view, view.target(path).folder)
        return create_folder(view, path)
    except WriteError as refusal:
        raise _bad_path("invalid_path") from refusal


def _check_place(view: View, parent: Folder) -> None:
    namespace = parent.inner.namespace
    if namespace.is_shared:
        raise _bad_path("inside_shared_folder")
    if namespace.kind == "app_folder":
        raise _bad_path("inside_app_folder")
    if not view.can_write(namespace):
        raise RouteError("no_permission")


def unshare(service: Service, account: Account, namespace: Namespace, *, leave_a_copy: bool) -> None:
    """Give the content back to the owner as an ordinary folder; the other members lose it, or keep a copy."""
    if namespace.kind == "team_folder":
        raise RouteError("team_folder")
    if namespace.owner != account.account_id:
        raise RouteError("no_permission")
    state = service.state
    others = [service.accounts.accounts[member] for member in namespace.members if member != account.account_id]
    for other in others:
        remove_member(service, namespace, other, leave_a_copy=leave_a_copy)
    folder = mount_of(namespace, account) or mount_at_home(service, namespace, account)
    folder.mount = None
    namespace.mounts.remove(folder)
    empty_into(state, namespace.root, folder)
    state.touch(folder)
    namespace.kind = DISSOLVED
    namespace.members.clear()
    state.store_namespace(namespace)


def add_member(service: Service, namespace: Namespace, account: Account, access: str, *, mounted: bool = False) -> None:
    """Let an account in, or change what it may do (an owner stays one); it mounts the folder unless this does."""
    if account.account_id == namespace.owner:
        return
    note_invitation(service, namespace, account)
    set_access(service.state, namespace, account, access)
    if mounted and mount_of(namespace, account) is None:
        mount_at_home(service, namespace, account)


def note_invitation(service: Service, namespace: Namespace, account: Account) -> None:
    """Remember when an account was let in."""
    namespace.extra.setdefault("invited", {}).setdefault(account.account_id, service.state.now())
    service.state.store_namespace(namespace)


def remove_member(service: Service, namespace: Namespace, account: Account, *, leave_a_copy: bool = False) -> None:
    """Take the folder from an account, or leave it a copy as an ordinary folder."""
    mount = mount_of(namespace, account)
    set_access(service.state, namespace, account, None)
    namespace.extra.get("invited", {}).pop(account.account_id, None)
    if leave_a_copy and mount is not None:
        root = home_of(service, account).root
        copy = service.state.add_folder(root, free_name(root, mount.name))
        for child in list(namespace.root.children.values()):
            service.state.duplicate(child, copy, child.name)


def mount(service: Service, account: Account, namespace: Namespace) -> None:
    """Show a shared folder in the account's home."""
    if mount_of(namespace, account) is not None:
        raise RouteError("already_mounted")
    mount_at_home(service, namespace, account)


def unmount(service: Service, account: Account, namespace: Namespace) -> None:
    """Hide a shared folder from the account's home; it stays a member."""
    if namespace.kind == "team_folder":
        raise RouteError("not_unmountable")
    place = mount_of(namespace, account)
    if place is None:
        raise access_error("unmounted")
    service.state.remove(place)


def received_files(service: Service, account: Account) -> list[tuple[dict[str, Any], Entry]]:
    """Return the single files that others have shared with an account: what was noted, and the file."""
    documents = service.state.collection("received_file").values()
    entries = service.state.entries
    return [
        (d, entries[d["entry_id"]]) for d in documents if d["to"] == account.account_id and d["entry_id"] in entries
    ]


def share_file(service: Service, file: File, owner: Account, receiver: Account, url: str) -> None:
    """Share one file with somebody who has no place for it in the own Dropbox."""
    service.state.collection("received_file")[f"{receiver.account_id} {file.id}"] = {
        "entry_id": file.id,
        "from": owner.account_id,
        "to": receiver.account_id,
        "url": url,
        "invited": service.state.now(),
    }
