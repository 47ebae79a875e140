"""The SDK's validators decode what the routes about other people answer: results, batch entries, error unions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import dropbox
import pytest
from dropbox import common, files, sharing, users

from fs_dropbox.emulator import Emulator

from .people import api_of, team_client
from .raw_api import Api

BOB = "bob@example.com"


@pytest.fixture
def bob(emulator: Emulator, api: Api) -> Iterator[dropbox.Dropbox]:
    emulator.control.add_account(BOB, "Bob")
    with dropbox.Dropbox(
        api_of(api, BOB).token, session=api.http, max_retries_on_error=0, max_retries_on_rate_limit=0
    ) as client:
        yield client


def error_from(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Return the decoded error of a call that must fail."""
    with pytest.raises(dropbox.exceptions.ApiError) as caught:
        call(*arguments, **options)
    return caught.value.error


def test_members_of_shared_folders(dbx: dropbox.Dropbox, bob: dropbox.Dropbox) -> None:
    folder = dbx.sharing_share_folder("/Shared").get_complete().shared_folder_id
    selector = sharing.MemberSelector.email(BOB)
    dbx.sharing_add_folder_member(folder, [sharing.AddMember(selector, sharing.AccessLevel.viewer)])
    found = dbx.sharing_list_folder_members(folder, limit=1)
    assert found.users[0].access_type.is_owner()
    rest = dbx.sharing_list_folder_members_continue(found.cursor)
    assert rest.users[0].user.email == BOB
    changed = dbx.sharing_update_folder_member(folder, selector, sharing.AccessLevel.editor)
    assert changed.access_level.is_editor()
    mounted = bob.sharing_mount_folder(folder)
    assert (mounted.path_lower, mounted.access_type.is_editor()) == ("/shared", True)
    assert error_from(bob.sharing_mount_folder, folder).is_already_mounted()
    assert error_from(bob.sharing_unshare_folder, folder).is_no_permission()
    assert error_from(dbx.sharing_relinquish_folder_membership, folder).is_folder_owner()
    assert bob.sharing_relinquish_folder_membership(folder).is_complete()
    assert error_from(bob.sharing_get_folder_metadata, folder).is_not_a_member()
    gone = error_from(dbx.sharing_update_folder_member, folder, selector, sharing.AccessLevel.editor)
    assert gone.get_member_error().is_not_a_member()
    launch = dbx.sharing_unshare_folder(folder)
    assert dbx.sharing_check_job_status(launch.get_async_job_id()).is_complete()
    assert error_from(dbx.sharing_mount_folder, folder).get_access_error().is_invalid_id()


def test_refused_sharing(dbx: dropbox.Dropbox) -> None:
    shared = dbx.sharing_share_folder("/Shared").get_complete()
    again = error_from(dbx.sharing_share_folder, "/Shared").get_bad_path().get_already_shared()
    assert again.shared_folder_id == shared.shared_folder_id
    assert error_from(dbx.sharing_share_folder, "/Shared/sub").get_bad_path().is_inside_shared_folder()
    job = dbx.sharing_share_folder("/Later", force_async=True).get_async_job_id()
    assert dbx.sharing_check_share_job_status(job).get_complete().name == "Later"
    assert error_from(dbx.sharing_check_job_status, job).is_invalid_async_job_id()
    missing = error_from(dbx.sharing_create_shared_link_with_settings, "/none")
    assert missing.get_path().is_not_found()
    settings = sharing.SharedLinkSettings(require_password=True)
    wrong = error_from(dbx.sharing_create_shared_link_with_settings, "/Shared", settings)
    assert wrong.get_settings_error().is_invalid_settings()
    assert error_from(dbx.sharing_revoke_shared_link, "nonsense").is_shared_link_malformed()
    assert error_from(dbx.sharing_list_shared_links, cursor="junk").is_reset()


def test_readers_of_shared_folders(emulator: Emulator, dbx: dropbox.Dropbox, bob: dropbox.Dropbox) -> None:
    emulator.control.write("/Shared/a.txt", b"1")
    emulator.control.share_folder_with_account("/Shared", BOB, access="viewer")
    folder = bob.files_get_metadata("/Shared")
    assert (folder.sharing_info.read_only, folder.sharing_info.traverse_only) == (True, False)
    assert bob.files_get_metadata("/Shared/a.txt").sharing_info.read_only
    refused = error_from(bob.files_upload, b"x", "/Shared/b.txt")
    assert refused.get_path().reason.is_no_write_permission()
    assert error_from(bob.files_delete_v2, "/Shared/a.txt").get_path_write().is_no_write_permission()
    moved = error_from(bob.files_move_v2, "/Shared/a.txt", "/a.txt")
    assert moved.get_from_write().is_no_write_permission()
    into = error_from(bob.files_copy_v2, "/Shared/a.txt", "/Shared/b.txt")
    assert into.get_to().is_no_write_permission()
    assert error_from(dbx.files_copy_v2, "/Shared", "/Copy").is_cant_copy_shared_folder()


def test_locks_and_their_conflicts(emulator: Emulator, dbx: dropbox.Dropbox, bob: dropbox.Dropbox) -> None:
    emulator.control.write("/Shared/a.txt", b"1")
    emulator.control.share_folder_with_account("/Shared", BOB)
    path = "/Shared/a.txt"
    dbx.files_lock_file_batch([files.LockFileArg(path)])
    conflict = bob.files_lock_file_batch([files.LockFileArg(path)]).entries[0].get_failure().get_lock_conflict()
    assert conflict.lock.content.get_single_user().lock_holder_account_id == emulator.account.account_id
    info = bob.files_get_metadata(path).file_lock_info
    assert (info.is_lockholder, info.lockholder_name) == (False, "Ann Example")
    assert bob.files_get_file_lock_batch([files.LockFileArg(path)]).entries[0].get_success().lock == conflict.lock
    free = dbx.files_unlock_file_batch([files.UnlockFileArg(path)]).entries[0].get_success()
    assert free.lock.content.is_unlocked()


def test_docs_and_what_is_refused_about_them(emulator: Emulator, dbx: dropbox.Dropbox) -> None:
    emulator.control.make_paper("/Doc.paper", "x")
    doc = dbx.files_get_metadata("/Doc.paper")
    assert doc.is_downloadable is False
    assert doc.export_info.export_options == ["html", "markdown"]
    assert error_from(dbx.files_download, "/Doc.paper").is_unsupported_file()
    assert error_from(dbx.files_export, "/Doc.paper", export_format="pdf").is_invalid_export_format()
    emulator.control.write("/a.txt", b"1")
    assert error_from(dbx.files_export, "/a.txt").is_non_exportable()
    markdown = files.ImportFormat.markdown
    assert error_from(dbx.files_paper_create, b"x", "/a.doc", markdown).is_invalid_file_extension()
    overwrite = files.PaperDocUpdatePolicy.overwrite
    wrong = error_from(dbx.files_paper_update, b"x", "/a.txt", markdown, overwrite)
    assert wrong.get_path().is_unsupported_content_type()
    emulator.control.restrict("/a.txt")
    assert error_from(dbx.files_download, "/a.txt").get_path().is_restricted_content()


def test_copies_and_urls(dbx: dropbox.Dropbox, bob: dropbox.Dropbox) -> None:
    dbx.files_upload(b"1", "/a.txt")
    reference = dbx.files_copy_reference_get("/a.txt")
    assert reference.metadata.name == "a.txt"
    assert bob.files_copy_reference_save(reference.copy_reference, "/b.txt").metadata.path_display == "/b.txt"
    taken = error_from(bob.files_copy_reference_save, reference.copy_reference, "/b.txt")
    assert taken.get_path().get_conflict().is_file()
    assert error_from(bob.files_copy_reference_save, "junk", "/c.txt").is_invalid_copy_reference()
    assert error_from(dbx.files_save_url, "/x", "ftp://example.com/").is_invalid_url()
    link = dbx.files_get_temporary_link("/a.txt").link
    job = dbx.files_save_url("/saved.txt", link).get_async_job_id()
    assert isinstance(dbx.files_save_url_check_job_status(job).get_complete(), files.FileMetadata)


def test_pictures(dbx: dropbox.Dropbox) -> None:
    dbx.files_upload(b"\x89PNG\r\n\x1a\n", "/p.png")
    dbx.files_upload(b"1", "/t.txt")
    batch = dbx.files_get_thumbnail_batch([files.ThumbnailArg("/p.png"), files.ThumbnailArg("/t.txt")]).entries
    assert batch[0].get_success().metadata.name == "p.png"
    assert batch[1].get_failure().is_unsupported_extension()
    assert error_from(dbx.files_get_thumbnail, "/none.png").get_path().is_not_found()
    assert error_from(dbx.files_get_preview, "/t.txt").is_unsupported_extension()


def test_team_members(emulator: Emulator, api: Api, dbx: dropbox.Dropbox) -> None:
    emulator.control.add_team("Acme")
    emulator.control.add_member("ann@example.com", admin=True)
    emulator.control.add_member(BOB, "Bob")
    emulator.control.add_team_folder("Plans", access={BOB: "viewer"})
    account = dbx.users_get_current_account()
    assert isinstance(account.root_info, common.TeamRootInfo)
    assert (account.root_info.home_path, account.team.name) == ("/Ann", "Acme")
    assert account.team.top_level_content_policy.is_admin_only()
    assert account.account_type.is_business()
    assert dbx.users_get_space_usage().allocation.is_team()
    wanted = [users.UserFeature.file_locking, users.UserFeature.paper_as_files]
    assert dbx.users_features_get_values(wanted).values[0].get_file_locking().get_enabled()
    with team_client(emulator, api, BOB) as client:
        page = client.team_namespaces_list(limit=2)
        more = client.team_namespaces_list_continue(page.cursor)
        names = {namespace.name for namespace in page.namespaces + more.namespaces}
        assert {"Acme", "Ann", "Bob", "Plans"} == names
        folders = client.team_team_folder_list(limit=1)
        more_folders = client.team_team_folder_list_continue(folders.cursor)
        assert [folder.name for folder in folders.team_folders + more_folders.team_folders] == ["Acme", "Plans"]
        assert error_from(client.team_members_list_continue_v2, "junk").is_invalid_cursor()


def test_refused_roots_and_selections(emulator: Emulator, api: Api, dbx: dropbox.Dropbox) -> None:
    emulator.control.add_team()
    emulator.control.add_member("ann@example.com", admin=True)
    with pytest.raises(dropbox.exceptions.PathRootError) as refused:
        dbx.with_path_root(common.PathRoot.namespace_id("1")).files_list_folder("")
    assert refused.value.error.is_no_permission()
    with team_client(emulator, api, "ann@example.com") as client:
        for selected in (client.as_user("dbmid:none"), client.as_admin("dbmid:none")):
            with pytest.raises(dropbox.exceptions.AuthError):
                selected.files_list_folder("")
        no_selection = dropbox.Dropbox(client._oauth2_access_token, session=api.http)
        with pytest.raises(dropbox.exceptions.BadInputError, match="Dropbox-API-Select-User"):
            no_selection.files_list_folder("")
    emulator.control.suspend("ann@example.com")
    with pytest.raises(dropbox.exceptions.AuthError) as suspended:
        dbx.files_list_folder("")
    assert suspended.value.error.is_user_suspended()
