"""Asynchronous jobs: the work is done when a job is launched, its result is told when it has been asked for."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass
from typing import Any

from fs_dropbox.emulator.model.errors import RouteError, union
from fs_dropbox.emulator.model.options import Options

REMEMBERED = 500  # each may have a thousand entries to tell of


@dataclass(slots=True)
class _Job:
    kind: str
    account_id: str | None
    status: dict[str, Any]
    polls_left: int


class Jobs:
    """Thread-safe; `_lock` is a leaf. Jobs do not survive a restart."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._jobs: dict[str, _Job] = {}

    def answer(
        self, kind: str, account_id: str | None, status: dict[str, Any], *, as_job: bool, force: bool
    ) -> dict[str, Any]:
        """Return what launching a job answers: its status at once, or the id of a job that will tell it.

        `as_job` is how the service was recorded to answer, from which the options may differ unless `force`.
        """
        how = self._options.batch_answer
        if not force and (how == "complete" or (how == "as_recorded" and not as_job)):
            return status
        job_id = "dbjid:" + secrets.token_urlsafe(64)
        with self._lock:
            self._jobs[job_id] = _Job(kind, account_id, status, self._options.job_polls)
            if len(self._jobs) > REMEMBERED:
                del self._jobs[next(iter(self._jobs))]
        return union("async_job_id", async_job_id=job_id)

    def check(self, kind: str, account_id: str | None, job_id: str) -> dict[str, Any]:
        """Return the status of a job, or raise invalid_async_job_id."""
        with self._lock:
            job = self._jobs.get(job_id)
            if job is None or job.kind != kind or job.account_id != account_id:
                raise RouteError("invalid_async_job_id")
            if job.polls_left > 0:
                job.polls_left -= 1
                return union("in_progress")
            return job.status
