"""`BatchCalls`: the API's calls that copy, move or delete many things at once. Knows no cache and no `fs.errors`.

Such a call starts a job, which is then asked for until it has finished; every entry has its own result.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from fs_dropbox.api import results, routes
from fs_dropbox.api.calls import Caller
from fs_dropbox.api.fresh import Fresh
from fs_dropbox.api.routes import Route
from fs_dropbox.entries import FileEntry, FolderEntry
from fs_dropbox.errors import ApiError, TransportError, tags

BATCH_ENTRIES: Final = 1000  # the most that one call takes
# Jobs have been seen to take two minutes, and to be stuck for an hour.
JOB_SECONDS: Final = 600.0
FIRST_POLL_SECONDS: Final = 0.1
LONGEST_POLL_SECONDS: Final = 5.0

Outcome: TypeAlias = FileEntry | FolderEntry | ApiError


class UnfinishedJobError(TransportError):
    """A job has not finished in time; it may still do."""


class BatchCalls:
    """Thread-safe, lock-free; owned by Client.

    Every method returns the outcome of each entry, in order: what is there now (of a deletion: what was there), or why
    nothing was done. It raises ApiError where nothing was done at all, and UnfinishedJobError where Dropbox is not done
    in ten minutes; any other TransportError with `is_unsettled` means that the job, or what it has done, is not known.
    """

    def __init__(self, caller: Caller, fresh: Fresh) -> None:
        self._caller = caller
        self._fresh = fresh

    def copy(self, pairs: Sequence[tuple[str, str]]) -> list[Outcome]:
        """Copy from one path to another, each pair; never overwrites."""
        return self._relocate(routes.COPY_BATCH, routes.COPY_BATCH_CHECK, pairs)

    def move(self, pairs: Sequence[tuple[str, str]]) -> list[Outcome]:
        """Move from one path to another, each pair; never overwrites."""
        return self._relocate(routes.MOVE_BATCH, routes.MOVE_BATCH_CHECK, pairs, allow_ownership_transfer=True)

    def delete(self, wanted: Sequence[tuple[str, str | None]]) -> list[Outcome]:
        """Delete what is at each path: of a file this revision alone, where one is given; a folder with all in it."""
        argument = {"entries": [{"path": path, **({"parent_rev": rev} if rev else {})} for path, rev in wanted]}
        return self._run(routes.DELETE_BATCH, routes.DELETE_BATCH_CHECK, argument)

    def _relocate(self, route: Route, check: Route, pairs: Sequence[tuple[str, str]], **options: bool) -> list[Outcome]:
        entries = [{"from_path": source, "to_path": target} for source, target in pairs]
        outcomes = self._run(route, check, {"entries": entries, "autorename": False, **options})
        return [
            each if isinstance(each, ApiError) else self._fresh.note(results.placed(each, target))
            for each, (_, target) in zip(outcomes, pairs, strict=True)
        ]

    def _run(self, route: Route, check: Route, argument: dict[str, Any]) -> list[Outcome]:
        count = len(argument["entries"])

        def decode(result: dict[str, Any]) -> list[Outcome] | ApiError | str | None:
            """Return the outcomes, why there are none, the id of the job that will have them, or None until it has."""
            match result[".tag"]:
                case "async_job_id":
                    return str(result["async_job_id"])
                case "in_progress":
                    return None
                case "failed":
                    return ApiError(route.name, tags(result["failed"]))
            entries = result["entries"]
            if len(entries) != count:
                raise ValueError(f"{len(entries)} results for {count} entries")
            return [_outcome(route.name, entry) for entry in entries]

        answer = self._caller.call(route, argument, decode=decode)
        deadline = time.monotonic() + JOB_SECONDS
        job, pause = answer, FIRST_POLL_SECONDS
        while not isinstance(answer, list):
            if isinstance(answer, ApiError):
                raise answer
            if time.monotonic() + pause > deadline:
                raise _unsettled(UnfinishedJobError("timeout", "Dropbox is still at work", route=route.name))
            self._caller.pause(pause)
            pause = min(pause * 1.5, LONGEST_POLL_SECONDS)
            try:
                answer = self._caller.call(check, {"async_job_id": job}, decode=decode)
            except TransportError as error:
                raise _unsettled(error) from None
            except ApiError as error:
                raise _unsettled(TransportError("server", f"what became of a job is not told: {error}")) from error
        return answer


def _unsettled(error: TransportError) -> TransportError:
    error.is_unsettled = True
    return error


def _outcome(route: str, entry: dict[str, Any]) -> Outcome:
    failure = results.failure(route, entry)
    if failure is not None:
        if failure.tag[:1] == ("relocation_error",):
            failure.tag = failure.tag[1:]
        return failure
    return results.decode_present(entry["success"] if "success" in entry else entry["metadata"])
