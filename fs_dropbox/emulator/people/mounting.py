"""Where namespaces show in people's Dropboxes: mounts in homes, and who is a member. Needs State.mutation()."""

from __future__ import annotations

from fs_dropbox.emulator.model.accounts import Account
from fs_dropbox.emulator.model.mutations import numbered_name
from fs_dropbox.emulator.model.names import fold
from fs_dropbox.emulator.model.state import State
from fs_dropbox.emulator.model.tree import Folder, Namespace
from fs_dropbox.emulator.service import Service

DISSOLVED = "dissolved"  # the kind of a namespace that is no more; its revisions still name it


def free_name(folder: Folder, name: str) -> str:
    """Return the name, or the first of "name (1)", "name (2)"… that the folder does not have yet."""
    return numbered_name(folder, name) if fold(name) in folder.inner.children else name


def home_of(service: Service, account: Account) -> Namespace:
    """Return the account's home."""
    return service.state.namespaces[account.home_namespace_id]


def mount_of(namespace: Namespace, account: Account) -> Folder | None:
    """Return the folder at which an account has mounted a namespace: in its home, or in its team's root."""
    places = (account.home_namespace_id, account.root_namespace_id)
    return next((mount for mount in namespace.mounts if mount.namespace.id in places), None)


def mount_at_home(service: Service, namespace: Namespace, account: Account) -> Folder:
    """Mount a namespace in an account's home, under another name when its own is taken."""
    root = home_of(service, account).root
    return service.state.mount(namespace, root, free_name(root, namespace.name))


def set_access(state: State, namespace: Namespace, account: Account, access: str | None) -> None:
    """Make an account a member (owner, editor, viewer, viewer_no_comment) or none; who loses it has it unmounted."""
    gains = access is not None and account.account_id not in namespace.members
    if access is None:
        namespace.members.pop(account.account_id, None)
        former = namespace.extra.setdefault("former_members", [])
        if account.account_id not in former:
            former.append(account.account_id)
        for mount in [mount for mount in namespace.mounts if mount.namespace.id == account.home_namespace_id]:
            state.remove(mount)
    else:
        namespace.members[account.account_id] = access
    for mount in namespace.mounts:
        state.touch(mount)  # read_only, or whether it is shown at all, may have changed: cursors tell
        if gains:
            state.report_mounted(mount)
    state.store_namespace(namespace)


def empty_into(state: State, source: Folder, target: Folder) -> None:
    """Move everything from one folder into an empty one."""
    for child in list(source.inner.children.values()):
        state.relocate(child, target.inner, child.name)
