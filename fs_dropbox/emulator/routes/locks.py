"""File locks, in batches that are answered at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fs_dropbox.emulator.arguments import Arguments
from fs_dropbox.emulator.model import metadata
from fs_dropbox.emulator.model.errors import PathLookupError, union
from fs_dropbox.emulator.model.tree import File
from fs_dropbox.emulator.people import locks
from fs_dropbox.emulator.people.locks import LockError
from fs_dropbox.emulator.web import registry
from fs_dropbox.emulator.web.context import Context


def _for_each(context: Context, arg: Arguments, work: Callable[[File], None] | None) -> Any:
    paths = [entry.path("path") for entry in arg.structs("entries")]
    results = []
    with context.mutation():
        for path in paths:
            try:
                file = context.view.find(path)
                if not isinstance(file, File):
                    raise PathLookupError("not_file")
                if work is not None:
                    work(file)
                shown = metadata.of_entry(context.view, file)
                results.append(union("success", metadata=shown, lock=locks.describe(file)))
            except PathLookupError as error:
                results.append(union("failure", failure=union("path_lookup", path_lookup=error.union)))
            except LockError as error:
                results.append(union("failure", failure=error.union))
    return {"entries": results}


@registry.route("files/lock_file_batch")
def lock_files(context: Context, arg: Arguments) -> Any:
    """Lock files of shared folders for the caller."""
    return _for_each(context, arg, lambda file: locks.lock(context.service, context.view, file, context.user))


@registry.route("files/unlock_file_batch")
def unlock_files(context: Context, arg: Arguments) -> Any:
    """Unlock the caller's locks; a team admin unlocks everybody's."""
    by_force = context.admin is not None

    def work(file: File) -> None:
        locks.unlock(context.service, context.view, file, context.user, by_force=by_force)

    return _for_each(context, arg, work)


@registry.route("files/get_file_lock_batch")
def get_locks(context: Context, arg: Arguments) -> Any:
    """Answer who holds which lock."""
    return _for_each(context, arg, None)
