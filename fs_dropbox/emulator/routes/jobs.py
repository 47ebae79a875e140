"""How far asynchronous jobs are."""

from __future__ import annotations

from typing import Any

from fs_dropbox.emulator.arguments import Arguments
from fs_dropbox.emulator.web import registry
from fs_dropbox.emulator.web.context import Context

KINDS = {
    "files/delete_batch/check": "delete_batch",
    "files/create_folder_batch/check": "create_folder_batch",
    "files/move_batch/check_v2": "move_batch",
    "files/copy_batch/check_v2": "copy_batch",
    "files/upload_session/finish_batch/check": "finish_batch",
    "files/save_url/check_job_status": "save_url",
    "sharing/check_share_job_status": "share_folder",
    "sharing/check_remove_member_job_status": "remove_member",
    "sharing/check_job_status": "sharing",
}


@registry.route(*KINDS)
def check(context: Context, arg: Arguments) -> Any:
    """Answer how far a job is."""
    job_id = arg.get("async_job_id")
    return context.service.jobs.check(KINDS[context.route], context.account_id, job_id)
