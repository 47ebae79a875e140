"""The table from Dropbox's error tags to PyFilesystem's errors and to reasons in words for people. Knows nothing else.

Source of the tags: the unions of the API's specification; tests walk the SDK's unions to prove the table complete.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from fs import errors


class NoAccess(errors.PermissionDenied):
    """The account is closed to these credentials, or lets them do none of that: no other call would fare better."""


Rule: TypeAlias = tuple[type[errors.FSError], str]
Tags: TypeAlias = tuple[str, ...]

_FULL: Final = (errors.InsufficientStorage, "the Dropbox is full")
_BUSY: Final = (errors.OperationFailed, "Dropbox is busy with other changes there; try again in a moment")
_REJECTED: Final = (NoAccess, "Dropbox no longer accepts the authorisation: run `fs-dropbox login`")
_DAMAGED: Final = (errors.OperationFailed, "the content was damaged on its way to Dropbox; nothing was stored")
_SESSION: Final = (errors.OperationFailed, "the upload got out of step with Dropbox; upload the file again")
_TOO_LARGE: Final = (errors.OperationFailed, "the file is larger than Dropbox allows")
_NOT_DOWNLOADABLE: Final = (errors.Unsupported, "this file cannot be downloaded, only exported")
_TOO_MANY: Final = (errors.OperationFailed, "Dropbox does not do that for so many files at once")
_OTHER: Final = (errors.OperationFailed, "Dropbox refused without giving a reason")
_EMAIL: Final = (errors.PermissionDenied, "the e-mail address of the account has to be verified first")

LOOKUP: Final[dict[Tags, Rule]] = {
    ("malformed_path",): (errors.InvalidPath, "Dropbox does not accept this path"),
    ("not_found",): (errors.ResourceNotFound, "no such file or folder"),
    ("not_file",): (errors.FileExpected, "it is a folder, not a file"),
    ("not_folder",): (errors.DirectoryExpected, "it is a file, not a folder"),
    ("restricted_content",): (errors.PermissionDenied, "Dropbox has restricted this content (legal reasons)"),
    ("unsupported_content_type",): (errors.Unsupported, "Dropbox does not do that with this kind of file"),
    ("locked",): (errors.ResourceLocked, "locked by someone else"),
    ("other",): _OTHER,
}
WRITE: Final[dict[Tags, Rule]] = {
    ("malformed_path",): (errors.InvalidCharsInPath, "Dropbox does not allow this name"),
    ("conflict",): (errors.FileExists, "something with this name is there already"),
    ("conflict", "file"): (errors.FileExists, "a file with this name is there already"),
    ("conflict", "folder"): (errors.FileExpected, "a folder with this name is there already"),
    ("conflict", "file_ancestor"): (errors.DirectoryExpected, "part of its path is a file, not a folder"),
    ("conflict", "other"): (errors.FileExists, "something with this name is there already"),
    ("no_write_permission",): (errors.PermissionDenied, "no permission to write in this shared folder"),
    ("insufficient_space",): _FULL,
    ("disallowed_name",): (errors.InvalidPath, "Dropbox does not allow this name"),
    ("team_folder",): (errors.PermissionDenied, "a team folder can only be changed by the team's administrators"),
    ("operation_suppressed",): (errors.PermissionDenied, "Dropbox does not let this change happen here"),
    ("too_many_write_operations",): _BUSY,
    ("access_restricted",): (errors.PermissionDenied, "the team's rules do not allow this change"),
    ("team_folder_insufficient_space",): (errors.InsufficientStorage, "the team folder is full"),
    ("member_folder_insufficient_space",): (errors.InsufficientStorage, "the member's folder is full"),
    ("upload_traffic_limit_reached",): (errors.InsufficientStorage, "the account has used up its upload traffic"),
    ("other",): _OTHER,
}
SESSION: Final[dict[Tags, Rule]] = {
    ("not_found",): (errors.OperationFailed, "Dropbox has forgotten the upload; upload the file again"),
    ("incorrect_offset",): _SESSION,
    ("closed",): _SESSION,
    ("not_closed",): _SESSION,
    ("too_large",): _TOO_LARGE,
    ("concurrent_session_invalid_offset",): _SESSION,
    ("concurrent_session_invalid_data_size",): _SESSION,
    ("concurrent_session_data_not_allowed",): _SESSION,
    ("concurrent_session_close_not_allowed",): _SESSION,
    ("concurrent_session_not_closed",): _SESSION,
    ("concurrent_session_missing_data",): _SESSION,
    ("payload_too_large",): _TOO_LARGE,
    ("content_hash_mismatch",): _DAMAGED,
    ("length_mismatch",): _DAMAGED,
    ("other",): _OTHER,
}


def _under(prefix: str, rules: dict[Tags, Rule]) -> dict[Tags, Rule]:
    return {(prefix, *tags): rule for tags, rule in rules.items()}


_RELOCATED: Final[dict[Tags, Rule]] = _under("from_lookup", LOOKUP) | _under("from_write", WRITE) | _under("to", WRITE)

TABLE: Final[dict[Tags, Rule]] = {
    **_under("path", WRITE),
    **_under("path", LOOKUP),  # malformed_path reads alike; routes that write say more below
    **_under("path_lookup", LOOKUP),
    **_under("path_write", WRITE),
    **_under("lookup_failed", SESSION),
    **SESSION,
    **_RELOCATED,
    ("to", "conflict"): (errors.DestinationExists, "something with this name is there already"),
    ("to", "conflict", "file"): (errors.DestinationExists, "a file with this name is there already"),
    ("to", "conflict", "folder"): (errors.DestinationExists, "a folder with this name is there already"),
    ("to", "conflict", "other"): (errors.DestinationExists, "something with this name is there already"),
    # Uploads
    ("properties_error",): (errors.OperationFailed, "Dropbox stored the file without its properties"),
    ("encryption_not_supported",): (errors.Unsupported, "Dropbox does not encrypt files for this account"),
    ("too_many_shared_folder_targets",): _TOO_MANY,
    ("too_many_write_operations",): _BUSY,
    # Downloads and exports
    ("unsupported_file",): _NOT_DOWNLOADABLE,
    ("non_exportable",): (errors.Unsupported, "this file cannot be exported"),
    ("invalid_export_format",): (errors.Unsupported, "this file cannot be exported in that format"),
    ("export_too_large",): (errors.Unsupported, "what it is exported as is larger than 256 MB"),
    ("retry_error",): (errors.OperationFailed, "Dropbox is still preparing the export; try again in a moment"),
    ("not_allowed",): (errors.PermissionDenied, "Dropbox does not allow a link to this file"),
    ("email_not_verified",): _EMAIL,
    # Moves, copies, deletions, revisions
    ("cant_copy_shared_folder",): (errors.PermissionDenied, "a shared folder cannot be copied"),
    ("cant_nest_shared_folder",): (errors.PermissionDenied, "a shared folder cannot be put into another one"),
    ("cant_move_folder_into_itself",): (errors.OperationFailed, "a folder cannot be put into itself"),
    ("too_many_files",): _TOO_MANY,
    ("duplicated_or_nested_paths",): (errors.OperationFailed, "source and target are the same or lie in each other"),
    ("cant_transfer_ownership",): (errors.PermissionDenied, "that would give the folder to another owner"),
    ("insufficient_quota",): _FULL,
    ("team_folder_insufficient_quota",): (errors.InsufficientStorage, "the team folder is full"),
    ("member_folder_insufficient_quota",): (errors.InsufficientStorage, "the member's folder is full"),
    ("invalid_async_job_id",): (
        errors.RemoteConnectionError,
        "Dropbox has forgotten what it was doing; look whether it was done",
    ),
    ("internal_error",): (errors.RemoteConnectionError, "Dropbox has an internal problem; look whether it was done"),
    ("cant_move_shared_folder",): (errors.PermissionDenied, "this shared folder cannot be moved there"),
    ("cant_move_into_vault", "is_shared_folder"): (errors.PermissionDenied, "a shared folder cannot be put into Vault"),
    ("cant_move_into_vault", "other"): (errors.PermissionDenied, "that cannot be put into Vault"),
    ("cant_move_into_family", "is_shared_folder"): (
        errors.PermissionDenied,
        "a shared folder cannot be put into the Family Room",
    ),
    ("cant_move_into_family", "other"): (errors.PermissionDenied, "that cannot be put into the Family Room"),
    ("invalid_revision",): (errors.ResourceNotFound, "there is no such version"),
    ("invalid_before_rev",): (errors.ResourceNotFound, "there is no such version"),
    ("before_rev_not_supported",): (errors.Unsupported, "older versions cannot be listed for this file"),
    ("in_progress",): (errors.OperationFailed, "Dropbox is still restoring this file; try again in a moment"),
    # Listings
    ("invalid_cursor",): (errors.OperationFailed, "the listing has expired; list the folder again"),
    ("reset",): (errors.OperationFailed, "the listing has expired; list the folder again"),
    ("template_error",): (errors.OperationFailed, "Dropbox does not know the property template"),
    # Shared links
    ("shared_link_already_exists",): (errors.OperationFailed, "there is a shared link already"),
    ("shared_link_already_exists", "metadata"): (errors.OperationFailed, "there is a shared link already"),
    ("shared_link_already_exists", "other"): (errors.OperationFailed, "there is a shared link already"),
    ("permission_denied",): (errors.PermissionDenied, "no permission to list the shared links"),
    ("settings_error", "invalid_settings"): (errors.Unsupported, "these settings cannot be combined"),
    ("settings_error", "not_authorized"): (errors.PermissionDenied, "this account may not use these settings"),
    ("access_denied",): (errors.PermissionDenied, "no permission to share this"),
    ("banned_member",): (errors.PermissionDenied, "this account may not share"),
    ("too_many_shared_folders",): _TOO_MANY,
    # Dropbox says neither: we find it out.
    ("stored_otherwise",): (
        errors.OperationFailed,
        "what Dropbox has stored is not what was sent: upload the file again; what was there is an earlier revision",
    ),
    ("begun_otherwise",): (
        errors.OperationFailed,
        "it does not begin with what an upload before has sent of it: upload all of it anew; nothing was stored",
    ),
    # 401, 403, 422, 429, 400
    ("invalid_access_token",): _REJECTED,
    ("expired_access_token",): (NoAccess, "the access token has expired: run `fs-dropbox login`"),
    ("invalid_client",): (NoAccess, "Dropbox does not know the app key or its secret"),
    ("invalid_select_user",): (NoAccess, "the token may not act as that team member"),
    ("invalid_select_admin",): (NoAccess, "the token may not do that as that team administrator"),
    ("member_not_found",): (NoAccess, "that team member is not in the team"),
    ("wrong_account",): (NoAccess, "the access token belongs to another account"),
    ("user_suspended",): (NoAccess, "the account is suspended"),
    ("missing_scope",): (NoAccess, "the app was not authorised for that: run `fs-dropbox login`"),
    ("route_access_denied",): (errors.PermissionDenied, "the app may not do that"),
    ("invalid_account_type", "endpoint"): (errors.PermissionDenied, "this kind of account cannot do that"),
    ("invalid_account_type", "feature"): (errors.PermissionDenied, "this kind of account does not have that feature"),
    ("invalid_account_type", "other"): (errors.PermissionDenied, "this kind of account cannot do that"),
    ("paper_access_denied", "paper_disabled"): (errors.PermissionDenied, "Paper is switched off for this account"),
    ("paper_access_denied", "not_paper_user"): (errors.PermissionDenied, "this account does not use Paper"),
    ("paper_access_denied", "other"): (errors.PermissionDenied, "this account cannot use Paper"),
    ("team_access_denied",): (errors.PermissionDenied, "the team does not allow that"),
    ("no_permission",): (errors.PermissionDenied, "no permission for that"),
    ("no_permission", "unauthorized_account_id_usage"): (errors.PermissionDenied, "no permission for that account"),
    ("no_permission", "other"): (errors.PermissionDenied, "no permission for that"),
    ("invalid_root",): (NoAccess, "the root folder of the account has changed; open it again"),
    ("invalid_root", "followed"): (
        errors.OperationFailed,
        "the account has another root folder now, where this path means something else; nothing was changed there",
    ),
    ("too_many_requests",): (errors.OperationFailed, "Dropbox limits the rate of requests; try again later"),
    ("bad_request",): (errors.OperationFailed, "Dropbox does not accept the request"),
}

# Where the same tag means something else on one route.
ROUTES: Final[dict[tuple[str, Tags], Rule]] = {
    ("files/create_folder_v2", ("path", "conflict", kind)): (errors.DirectoryExists, WRITE["conflict", kind][1])
    for kind in ("file", "folder", "other")
}


def find(route: str, tags: Tags) -> Rule | None:
    """Return the rule for an error; of tags that are new to us, the rule for as much of them as is known."""
    while tags:
        rule = ROUTES.get((route, tags)) or TABLE.get(tags)
        if rule is not None:
            return rule
        tags = tags[:-1]
    return None
