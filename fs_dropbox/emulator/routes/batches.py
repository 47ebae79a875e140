"""Changes of many entries in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from fs_dropbox.emulator.arguments import Arguments
from fs_dropbox.emulator.model import metadata, mutations
from fs_dropbox.emulator.model.errors import RateLimitError, RouteError, nested, union
from fs_dropbox.emulator.model.names import fold
from fs_dropbox.emulator.routes.files import delete_entry, deletion_errors, relocation_errors, write_path
from fs_dropbox.emulator.web import registry
from fs_dropbox.emulator.web.context import Context

MANY_FOLDERS = 100  # recorded with a job, two with an answer at once
CONTENDED = union("failure", failure=union("too_many_write_operations"))


def run_batch(
    context: Context,
    entries: Sequence[Sequence[str]],
    work: Callable[[int], dict[str, Any]],
    errors: Callable[[], AbstractContextManager[None]],
    *,
    wrap: Callable[[dict[str, Any]], dict[str, Any]] = lambda error: error,
    contended: dict[str, Any] = CONTENDED,
) -> list[dict[str, Any]]:
    """Do the work for each entry, given by the paths that it changes, under the write locks of their namespaces.

    `errors` makes its failures those of the route for a single entry, `wrap` what a batch has in their place.
    Who waits too long for a lock fails entirely.
    """

    def outcome(index: int) -> dict[str, Any]:
        try:
            with errors():
                context.check_declared_contention()
                return {".tag": "success", **work(index)}
        except RouteError as error:
            return union("failure", failure=wrap(error.error))

    try:
        with context.write_batch(entries):
            return [outcome(index) for index in range(len(entries))]
    except RateLimitError:
        return [contended] * len(entries)


@registry.route("files/delete_batch")
def delete_batch(context: Context, arg: Arguments) -> Any:
    """Delete several entries."""
    entries = arg.structs("entries")
    paths = [write_path(context, entry, "path") for entry in entries]
    parent_revs = [entry.get("parent_rev") for entry in entries]

    def work(index: int) -> dict[str, Any]:
        return {"metadata": delete_entry(context, paths[index], parent_revs[index])}

    status = union("complete", entries=run_batch(context, [[path] for path in paths], work, deletion_errors))
    return context.launch("delete_batch", status, as_job=True)


@registry.route("files/create_folder_batch")
def create_folder_batch(context: Context, arg: Arguments) -> Any:
    """Create several folders; a path given twice is made once, and answered at both places."""
    given = [write_path(context, Arguments({"paths": path}), "paths") for path in arg.get("paths")]
    once: dict[str, str] = {}
    for path in given:
        once.setdefault(fold(path), path)
    paths = list(once.values())
    autorename = arg.get("autorename", False)

    def work(index: int) -> dict[str, Any]:
        folder = mutations.create_folder(context.view, paths[index], autorename=autorename)
        return {"metadata": metadata.of_entry(context.view, folder, tagged=False)}

    contended = union("failure", failure=union("path", path=union("too_many_write_operations")))
    results = run_batch(context, [[path] for path in paths], work, nested, contended=contended)
    made = dict(zip(once, results, strict=True))
    status = union("complete", entries=[made[fold(path)] for path in given])
    as_job, force = len(given) >= MANY_FOLDERS, arg.get("force_async", False)
    return context.launch("create_folder_batch", status, as_job=as_job, force=force)


@registry.route("files/move_batch_v2", "files/copy_batch_v2")
def relocation_batch(context: Context, arg: Arguments) -> Any:
    """Move or copy several entries, each on its own."""
    entries = arg.structs("entries")
    sources = [write_path(context, entry, "from_path") for entry in entries]
    targets = [write_path(context, entry, "to_path") for entry in entries]
    autorename = arg.get("autorename", False)
    transfer = arg.get("allow_ownership_transfer", False)
    kind = "move_batch" if context.route == "files/move_batch_v2" else "copy_batch"

    def work(index: int) -> dict[str, Any]:
        source, target, move = sources[index], targets[index], kind == "move_batch"
        entry = mutations.relocate(
            context.view, source, target, move=move, autorename=autorename, may_change_owner=transfer
        )
        return {"success": metadata.of_entry(context.view, entry)}

    # A move changes the namespace that it takes from, too.
    changed = list(zip(sources, targets, strict=True)) if kind == "move_batch" else [[path] for path in targets]
    status = union("complete", entries=run_batch(context, changed, work, relocation_errors, wrap=_in_batch))
    return context.launch(kind, status, as_job=True)


def _in_batch(error: dict[str, Any]) -> dict[str, Any]:
    if error[".tag"] in ("too_many_write_operations", "internal_error"):
        return error
    return union("relocation_error", relocation_error=error)
