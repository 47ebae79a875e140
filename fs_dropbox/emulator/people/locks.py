"""Locks on files in shared folders: who holds them, what others are told. Knows no HTTP. Needs State.lock."""

from __future__ import annotations

from typing import Any

from fs_dropbox.emulator.model.accounts import Account
from fs_dropbox.emulator.model.errors import TaggedError, union
from fs_dropbox.emulator.model.times import format_time
from fs_dropbox.emulator.model.tree import File
from fs_dropbox.emulator.model.view import View
from fs_dropbox.emulator.service import Service

LOCKABLE = ("shared_folder", "team_folder", "team_root")


class LockError(TaggedError):
    """A files.LockFileError: file_not_shared, cannot_be_locked, lock_conflict…"""


def lock(service: Service, view: View, file: File, account: Account) -> None:
    """Lock a file for an account, or raise LockError. Needs State.mutation()."""
    if file.namespace.kind not in LOCKABLE:
        raise LockError("file_not_shared")
    if not file.extra.get("metadata", {}).get("is_downloadable", True):
        raise LockError("cannot_be_locked")
    if not view.can_write(file.namespace):
        raise LockError("no_write_permission")
    held = file.extra.get("lock")
    if held is not None and held["account_id"] != account.account_id:
        raise LockError("lock_conflict", lock=describe(file))
    if held is None:
        file.extra["lock"] = {
            "account_id": account.account_id,
            "name": account.display_name,
            "team_id": account.team_id,
            "created": service.state.now(),
        }
        service.state.touch(file)


def unlock(service: Service, view: View, file: File, account: Account, *, by_force: bool = False) -> None:
    """Take an account's lock away (anybody's by force), or raise LockError. Needs State.mutation()."""
    if not (view.can_write(file.namespace) or by_force):
        raise LockError("no_write_permission")
    held = file.extra.get("lock")
    if held is None:
        return
    if held["account_id"] != account.account_id and not by_force:
        raise LockError("lock_conflict", lock=describe(file))
    del file.extra["lock"]
    service.state.touch(file)


def describe(file: File) -> dict[str, Any]:
    """Return files.FileLock."""
    held = file.extra.get("lock")
    if held is None:
        return {"content": union("unlocked")}
    content = union("single_user", created=format_time(held["created"]), lock_holder_account_id=held["account_id"])
    if held["team_id"] is not None:
        content["lock_holder_team_id"] = held["team_id"]
    return {"content": content}
