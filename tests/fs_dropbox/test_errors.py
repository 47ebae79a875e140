"""Every refusal of Dropbox has one PyFilesystem error and a reason for people; none tells a secret."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import dropbox.auth
import dropbox.common
import dropbox.files
import dropbox.sharing
import dropbox.users
import fs.errors
import pytest
from dropbox import stone_validators

from fs_dropbox import error_table, errors
from fs_dropbox.api import routes
from fs_dropbox.errors import (
    ApiError,
    AuthError,
    DropboxError,
    TransportError,
    VersionConflict,
    fs_errors,
    opening,
    tags,
    to_fs_error,
)

MODULES = {"files": dropbox.files, "sharing": dropbox.sharing, "users": dropbox.users}


def _tag_paths(union: Any) -> Iterator[tuple[str, ...]]:
    """Yield every path of tags that a union of the SDK can have; UploadWriteFailed keeps its union under `reason`."""
    for tag, validator in union._tagmap.items():
        while isinstance(validator, stone_validators.Nullable):
            validator = validator.validator
        if isinstance(validator, stone_validators.Union):
            yield from ((tag, *rest) for rest in _tag_paths(validator.definition))
        elif isinstance(validator, stone_validators.Struct) and hasattr(validator.definition, "reason"):
            inner = dict(validator.definition._all_fields_)["reason"].definition
            yield from ((tag, *rest) for rest in _tag_paths(inner))
        else:
            yield (tag,)


def _is_known(path: tuple[str, ...]) -> bool:
    """Tell whether the table knows it; of property groups, which we never send, one rule is for all that goes wrong."""
    return path in error_table.TABLE or path[0] in ("properties_error", "template_error")


def _sdk_route(name: str) -> Any:
    namespace, _, route = name.partition("/")
    return getattr(MODULES[namespace], route.replace("/", "_"), None) if namespace in MODULES else None


ROUTES = [route for route in routes.ALL if not route.name.startswith("team/")]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_the_table_is_complete(route: routes.Route) -> None:
    sdk_route = _sdk_route(route.name)
    assert sdk_route is not None
    assert sdk_route.attrs["host"] == route.host
    assert sdk_route.attrs["style"] == route.style
    union = getattr(sdk_route.error_type, "definition", None)
    for path in _tag_paths(union) if union is not None else ():
        assert _is_known(path), f"{route.name} may answer {path}"


def test_batch_entries_and_refusals_of_all_routes_are_in_the_table() -> None:
    unions = [
        dropbox.files.UploadSessionAppendBatchEntryError,
        dropbox.files.UploadSessionFinishError,
        dropbox.auth.AuthError,
        dropbox.auth.AccessError,
        dropbox.auth.RateLimitReason,
    ]
    for union in unions:
        for path in _tag_paths(union):
            assert _is_known(path), path


def test_every_rule_is_a_filesystem_error_with_a_reason() -> None:
    for path, (kind, text) in (error_table.TABLE | error_table.ROUTES).items():
        assert issubclass(kind, fs.errors.FSError), path
        assert text[0].islower() or text.split()[0] in ("Dropbox", "Paper"), text
        assert not text.endswith("."), text


CASES = [
    ("files/get_metadata", ("path", "not_found"), fs.errors.ResourceNotFound),
    ("files/list_folder", ("path", "not_folder"), fs.errors.DirectoryExpected),
    ("files/download", ("path", "not_file"), fs.errors.FileExpected),
    ("files/download", ("unsupported_file",), fs.errors.Unsupported),
    ("files/download", ("path", "restricted_content"), fs.errors.PermissionDenied),
    ("files/upload", ("path", "conflict", "file"), fs.errors.FileExists),
    ("files/upload", ("path", "conflict", "folder"), fs.errors.FileExpected),
    ("files/upload", ("path", "conflict", "file_ancestor"), fs.errors.DirectoryExpected),
    ("files/upload", ("path", "insufficient_space"), fs.errors.InsufficientStorage),
    ("files/upload", ("path", "no_write_permission"), fs.errors.PermissionDenied),
    ("files/upload", ("path", "disallowed_name"), fs.errors.InvalidPath),
    ("files/create_folder_v2", ("path", "conflict", "folder"), fs.errors.DirectoryExists),
    ("files/create_folder_v2", ("path", "conflict", "file"), fs.errors.DirectoryExists),
    ("files/create_folder_v2", ("path", "conflict", "other"), fs.errors.DirectoryExists),
    ("files/create_folder_v2", ("path", "conflict", "file_ancestor"), fs.errors.DirectoryExpected),
    ("files/move_v2", ("from_lookup", "not_found"), fs.errors.ResourceNotFound),
    ("files/move_v2", ("to", "conflict", "file"), fs.errors.DestinationExists),
    ("files/delete_v2", ("path_lookup", "locked"), fs.errors.ResourceLocked),
    ("files/delete_v2", ("path_lookup", "malformed_path"), fs.errors.InvalidPath),
    ("users/get_current_account", ("invalid_access_token",), error_table.NoAccess),
    ("files/upload", ("something", "new"), fs.errors.OperationFailed),
    ("files/upload", ("path", "something_new"), fs.errors.OperationFailed),
]


# What callers tell apart, by the last of the tags; whatever is not here is an OperationFailed.
MEANINGS: dict[type[Exception], str] = {
    fs.errors.InsufficientStorage: """
        insufficient_space team_folder_insufficient_space member_folder_insufficient_space upload_traffic_limit_reached
        insufficient_quota team_folder_insufficient_quota member_folder_insufficient_quota""",
    fs.errors.PermissionDenied: """
        no_write_permission team_folder operation_suppressed access_restricted restricted_content not_allowed
        email_not_verified cant_copy_shared_folder cant_nest_shared_folder cant_move_shared_folder
        cant_transfer_ownership is_shared_folder cant_move_into_vault/other cant_move_into_family/other
        permission_denied not_authorized access_denied banned_member route_access_denied
        invalid_account_type/endpoint invalid_account_type/feature invalid_account_type/other paper_disabled
        not_paper_user paper_access_denied/other team_access_denied no_permission unauthorized_account_id_usage
        no_permission/other""",
    error_table.NoAccess: """
        invalid_access_token expired_access_token invalid_client invalid_select_user invalid_select_admin
        member_not_found wrong_account user_suspended missing_scope invalid_root""",
    fs.errors.Unsupported: """
        unsupported_content_type encryption_not_supported unsupported_file non_exportable invalid_export_format
        export_too_large before_rev_not_supported invalid_settings""",
    fs.errors.ResourceNotFound: "not_found invalid_revision invalid_before_rev",
    fs.errors.ResourceLocked: "locked",
    fs.errors.FileExpected: "not_file conflict/folder",
    fs.errors.DirectoryExpected: "not_folder conflict/file_ancestor",
    fs.errors.FileExists: "conflict conflict/file conflict/other",
    fs.errors.InvalidPath: "malformed_path disallowed_name",
    fs.errors.RemoteConnectionError: "internal_error invalid_async_job_id",
}
# Where the tags before the last make a difference.
TARGETS = {("to", "conflict"), ("to", "conflict", "file"), ("to", "conflict", "folder"), ("to", "conflict", "other")}
SESSIONS = {("not_found",), ("lookup_failed", "not_found")}


def test_every_tag_becomes_what_it_means() -> None:
    kinds = {tag: kind for kind, listed in MEANINGS.items() for tag in listed.split()}
    for path, (kind, _) in error_table.TABLE.items():
        expected = kinds.get("/".join(path[-2:]), kinds.get(path[-1], fs.errors.OperationFailed))
        if path in TARGETS:
            expected = fs.errors.DestinationExists
        elif path in SESSIONS:
            expected = fs.errors.OperationFailed
        elif path[-1] == "malformed_path" and path[0] in ("to", "from_write", "path_write"):
            expected = fs.errors.InvalidCharsInPath
        assert kind is expected, path


@pytest.mark.parametrize(("route", "tag", "kind"), CASES, ids=str)
def test_what_becomes_of_a_refusal(route: str, tag: tuple[str, ...], kind: type[Exception]) -> None:
    cause = ApiError(route, tag)
    with pytest.raises(kind) as caught, fs_errors("/a {b}.txt"):
        raise cause
    assert type(caught.value) is kind
    assert caught.value.__cause__ is cause
    assert "/a {b}.txt" in str(caught.value)
    assert caught.value.reason in str(caught.value)  # type: ignore[attr-defined]


def test_the_target_is_to_blame_for_its_own_conflict() -> None:
    in_the_way = to_fs_error(ApiError("files/move_v2", ("to", "conflict", "file")), "/a", "/b")
    gone = to_fs_error(ApiError("files/move_v2", ("from_lookup", "not_found")), "/a", "/b")
    assert (in_the_way.path, gone.path) == ("/b", "/a")  # type: ignore[attr-defined]


def test_a_lost_update_says_so() -> None:
    error = ApiError("files/upload", ("path", "conflict", "file"))
    error.lost_update = True
    converted = to_fs_error(error, "/a")
    assert type(converted) is VersionConflict
    assert isinstance(converted, fs.errors.OperationFailed)
    assert "changed by someone else" in str(converted)


def test_reasons_name_names() -> None:
    locked = ApiError(
        "files/delete_v2",
        ("path_lookup", "locked"),
        details={"path_lookup": {"lock": {"lockholder_name": "Ann Example"}}},
    )
    scope = AuthError("files/upload", ("missing_scope",), details={"required_scope": "files.content.write"})
    said = ApiError("files/upload", ("other",), user_message="The team says no.")
    assert errors.reason(locked) == "locked by Ann Example"
    assert "files.content.write" in errors.reason(scope)
    assert errors.reason(said) == "The team says no."
    assert "fs-dropbox login" in errors.reason(AuthError("x", ("invalid_access_token",)))


def test_what_an_account_may_not_do_is_told_in_the_words_of_dropbox() -> None:
    """The calls of a team's data transport limit, when they are used up, have the tag of a feature that is missing."""
    used_up = ApiError("files/upload", ("invalid_account_type", "feature"), status=403, user_message="No calls left.")
    silent = ApiError("files/upload", ("invalid_account_type", "feature"), status=403)
    assert errors.reason(used_up) == "No calls left."
    assert "that feature" in errors.reason(silent)
    used_up.actor = "ann@example.com"
    assert errors.reason(used_up) == "ann@example.com is not authorized: No calls left."
    assert isinstance(to_fs_error(used_up, "/a"), fs.errors.PermissionDenied)


def test_a_call_that_is_not_taken_is_told_as_such() -> None:
    told = "what answers at the address of Dropbox does not take this call (is it Dropbox?) (status {})"
    assert errors.reason(TransportError("server", "status 501", status=501)) == told.format(501)
    assert errors.reason(TransportError("protocol", "status 404", status=404)) == told.format(404)
    assert "internal problem" in errors.reason(TransportError("server", "status 503", status=503))
    assert "proxy" in errors.reason(TransportError("proxy", "status 407", status=407))


@pytest.mark.parametrize("kind", errors.TRANSPORT_REASONS)
def test_no_answer(kind: errors.TransportKind) -> None:
    converted = to_fs_error(TransportError(kind), "/a")
    expected = fs.errors.OperationTimeout if kind == "timeout" else fs.errors.RemoteConnectionError
    assert type(converted) is expected
    assert "/a" in str(converted)


def test_other_exceptions_pass() -> None:
    with pytest.raises(ZeroDivisionError), fs_errors("/"):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        (AuthError("oauth2/token", ("invalid_access_token",)), fs.errors.CreateFailed),
        (ApiError("x", ("bad_request",), message="no {such} app"), fs.errors.CreateFailed),
        (ValueError("root is {odd}"), fs.errors.CreateFailed),
        (TransportError("connect"), fs.errors.RemoteConnectionError),
    ],
)
def test_opening(cause: Exception, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught, opening():
        raise cause
    assert caught.value.reason in str(caught.value)  # type: ignore[attr-defined]


SECRET = "sl.u.AbCdEf0123456789-_xyz"


@pytest.mark.parametrize(
    "text",
    [
        f'Invalid authorization value in HTTP header "Authorization": "Bearer {SECRET}"',
        f"token {SECRET} expired",
        f"https://x/?refresh_token={SECRET}&a=b",
        f"https://x/?client_secret={SECRET[5:]}",
        f"https://x/?code={SECRET[5:]}&state=1",
        f"Authorization: Basic {SECRET[5:]}=",
    ],
)
def test_no_text_tells_a_secret(text: str) -> None:
    error = AuthError("files/upload", ("bad_request",), message=text, user_message=text)
    said = ApiError("files/upload", ("other",), user_message=text)
    transport = TransportError("reset", text)
    converted = to_fs_error(error, "/a")
    shown = [str(error), repr(error), str(transport), repr(transport), str(converted), errors.reason(error)]
    for text_shown in (*shown, str(to_fs_error(said, "/a")), str(to_fs_error(transport, "/a"))):
        assert "AbCdEf" not in text_shown
        assert SECRET[-8:] not in text_shown


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({".tag": "path", "path": {".tag": "conflict", "conflict": {".tag": "file"}}}, ("path", "conflict", "file")),
        (
            {".tag": "path", "reason": {".tag": "conflict", "conflict": {".tag": "file"}}, "upload_session_id": "A"},
            ("path", "conflict", "file"),
        ),
        ({"reason": {".tag": "too_many_requests"}, "retry_after": 3}, ("too_many_requests",)),
        (
            {".tag": "lookup_failed", "lookup_failed": {".tag": "incorrect_offset", "correct_offset": 9}},
            ("lookup_failed", "incorrect_offset"),
        ),
        (
            {".tag": "path", "path": {".tag": "malformed_path", "malformed_path": "some text"}},
            ("path", "malformed_path"),
        ),
        ("other", ("other",)),
        ({".tag": "other"}, ("other",)),
        (None, ()),
        ([], ()),
    ],
)
def test_tags(error: object, expected: tuple[str, ...]) -> None:
    assert tags(error) == expected


@pytest.mark.parametrize(
    "cause",
    [
        TransportError("timeout", was_sent=True),
        ApiError("files/upload", ("path", "conflict", "file")),
        ApiError("files/upload", ("other",), user_message="no {braces}, please"),
        ApiError("files/get_metadata", ("path", "not_found")),
    ],
    ids=str,
)
def test_errors_say_the_same_in_another_process(cause: DropboxError) -> None:
    """multiprocessing, ProcessPoolExecutor and Dask bring them home in a pickle."""
    error = to_fs_error(cause, "/a{b}")
    with pytest.raises(type(error)) as there:
        raise pickle.loads(pickle.dumps(error))
    assert str(there.value) == str(error)
    assert vars(there.value)["path"] == "/a{b}"


def test_a_wait_without_an_end_has_a_path_and_a_reason() -> None:
    with (
        pytest.raises(fs.errors.OperationTimeout, match=r"^'/a \{b\}': no answer within 300 s$") as caught,
        fs_errors("/a {b}"),
    ):
        raise TimeoutError("no answer within 300 s")
    assert isinstance(caught.value.exc, TimeoutError)
    assert caught.value.reason == "no answer within 300 s"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("root", "place"), [("1234", "the namespace 1234"), ("auto", "the root of the account"), ("home", "the root of")]
)
def test_a_root_that_nobody_may_enter_is_named_as_people_know_it(root: str, place: str) -> None:
    error = ApiError("files/list_folder", ("no_permission",), status=422)
    error.actor, error.root = "ann@example.com", root
    assert f"ann@example.com is not authorized to enter {place}" in str(to_fs_error(error, "/a"))
