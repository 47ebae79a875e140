"""Every API route in use: where it lives, how it is called, and what a lost answer means. Knows no HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from fs_dropbox.api.retry import Traffic

# What may take the place of Dropbox's hosts: "host", "host:port", either with http:// before where it knows no TLS.
STAND_IN: Final = r"((?P<scheme>https?)://)?(?P<netloc>(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?)/?"

Style: TypeAlias = Literal["rpc", "upload", "download"]


@dataclass(frozen=True, slots=True)
class Route:
    """One route. `repeatable`: sending the same call again does no harm, whatever became of the first one."""

    name: str
    host: Literal["api", "content", "notify"] = "api"
    style: Style = "rpc"
    traffic: Traffic = Traffic.READ
    repeatable: bool = True
    authorised: bool = True
    rooted: bool = True  # relative to the path root, as what has paths is


def _write(name: str, *, repeatable: bool = False) -> Route:
    return Route(name, traffic=Traffic.WRITE, repeatable=repeatable)


CURRENT_ACCOUNT: Final = Route("users/get_current_account", rooted=False)
SPACE_USAGE: Final = Route("users/get_space_usage", rooted=False)
MEMBER_INFO: Final = Route("team/members/get_info", rooted=False)

GET_METADATA: Final = Route("files/get_metadata")
LIST_FOLDER: Final = Route("files/list_folder")
LIST_FOLDER_CONTINUE: Final = Route("files/list_folder/continue")
LATEST_CURSOR: Final = Route("files/list_folder/get_latest_cursor")
LONGPOLL: Final = Route("files/list_folder/longpoll", host="notify", authorised=False, rooted=False)
LIST_REVISIONS: Final = Route("files/list_revisions")
DOWNLOAD: Final = Route("files/download", host="content", style="download")
EXPORT: Final = Route("files/export", host="content", style="download")
TEMPORARY_LINK: Final = Route("files/get_temporary_link")

# Whether an upload that was lost took place shows in the content hash; the same content again makes no new revision.
UPLOAD: Final = Route("files/upload", host="content", style="upload", traffic=Traffic.WRITE, repeatable=False)
SESSION_START: Final = Route("files/upload_session/start", host="content", style="upload", traffic=Traffic.DATA)
SESSION_START_BATCH: Final = Route("files/upload_session/start_batch", traffic=Traffic.DATA)
# Appends are repeatable because the session's answer says where it stands.
SESSION_APPEND: Final = Route("files/upload_session/append_v2", host="content", style="upload", traffic=Traffic.DATA)
SESSION_APPEND_BATCH: Final = Route(
    "files/upload_session/append_batch", host="content", style="upload", traffic=Traffic.DATA
)
SESSION_FINISH: Final = Route(
    "files/upload_session/finish", host="content", style="upload", traffic=Traffic.WRITE, repeatable=False
)
# Each entry is settled on its own.
SESSION_FINISH_BATCH: Final = _write("files/upload_session/finish_batch_v2")
CREATE_FOLDER: Final = _write("files/create_folder_v2")
DELETE: Final = _write("files/delete_v2")
MOVE: Final = _write("files/move_v2")
COPY: Final = _write("files/copy_v2")
# What became of their entries is looked up, all at once.
DELETE_BATCH: Final = _write("files/delete_batch")
MOVE_BATCH: Final = _write("files/move_batch_v2")
COPY_BATCH: Final = _write("files/copy_batch_v2")
DELETE_BATCH_CHECK: Final = Route("files/delete_batch/check")
MOVE_BATCH_CHECK: Final = Route("files/move_batch/check_v2")
COPY_BATCH_CHECK: Final = Route("files/copy_batch/check_v2")
RESTORE: Final = _write("files/restore")
CREATE_SHARED_LINK: Final = _write("sharing/create_shared_link_with_settings", repeatable=True)
LIST_SHARED_LINKS: Final = Route("sharing/list_shared_links")
LIST_MOUNTABLE_FOLDERS: Final = Route("sharing/list_mountable_folders")
LIST_MOUNTABLE_FOLDERS_CONTINUE: Final = Route("sharing/list_mountable_folders/continue")

ALL: Final = tuple(value for value in list(globals().values()) if isinstance(value, Route))
