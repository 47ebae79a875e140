"""Control over what is special about content: shared with others, locked, not downloadable, restricted."""

from __future__ import annotations

from typing import Any

from fs_dropbox.emulator.control.parts import ControlPart
from fs_dropbox.emulator.model import metadata, mutations, paper
from fs_dropbox.emulator.model.errors import PathLookupError
from fs_dropbox.emulator.model.mutations import CommitInfo, given
from fs_dropbox.emulator.model.tree import File, Folder, Namespace
from fs_dropbox.emulator.model.view import View
from fs_dropbox.emulator.people import locks, shared_folders, shared_links


class ContentControl(ControlPart):
    """Sharing and special files. Every method is a change of its own."""

    # Sharing ----------------------------------------------------------------

    def share_folder(self, path: str, *, account: str | None = None) -> str:
        """Share a folder of an account, created when missing; return its namespace id."""
        with self._service.state.mutation():
            return self._shared(path, account).id

    def share_folder_with_account(
        self, path: str, email: str, *, access: str = "editor", mounted: bool = True, account: str | None = None
    ) -> str:
        """Let another account into a folder, shared when it was not; return its namespace id.

        `access` is editor, viewer or viewer_no_comment; unless `mounted` the other account has to mount it.
        """
        with self._service.state.mutation():
            namespace = self._shared(path, account)
            shared_folders.add_member(self._service, namespace, self._account(email), access, mounted=mounted)
            return namespace.id

    def _shared(self, path: str, email: str | None) -> Namespace:
        view = self._view(email)
        try:
            entry = view.find(path)
            if isinstance(entry, Folder) and entry.mount is not None and entry.mount.is_shared:
                return entry.mount
        except PathLookupError:
            pass
        return shared_folders.share(self._service, view, self._account(email), path)

    def set_access(self, namespace_id: str, email: str, access: str | None) -> None:
        """Change what an account may do in a shared folder or team folder; None takes it away."""
        with self._service.state.mutation():
            namespace, account = self._service.state.namespaces[namespace_id], self._account(email)
            if access is None:
                shared_folders.remove_member(self._service, namespace, account)
            else:
                shared_folders.add_member(self._service, namespace, account, access)

    def share_file(self, path: str, email: str, *, account: str | None = None) -> None:
        """Share one file with another account, which then finds it among its received files."""
        with self._service.state.mutation():
            owner, file = self._account(account), self._file(self._view(account), path)
            link = shared_links.create(self._service, owner, file, None)
            shared_folders.share_file(self._service, file, owner, self._account(email), link.path(file))

    def links(self, *, account: str | None = None) -> list[dict[str, Any]]:
        """Return an account's shared links: the path part of the URL and the id of the entry."""
        with self._service.state.lock:
            found = shared_links.links_of(self._service, self._account(account))
            return [{"url_path": link.path(entry), "id": entry.id, "audience": link.audience} for link, entry in found]

    # Special files ------------------------------------------------------------

    def lock(self, path: str, *, by: str | None = None, account: str | None = None) -> None:
        """Lock a file for the account `by`; only files in shared folders and team folders can be locked."""
        with self._service.state.mutation():
            view = self._view(account)
            locks.lock(self._service, view, self._file(view, path), self._account(by))

    def unlock(self, path: str, *, account: str | None = None) -> None:
        """Take away whatever lock a file has."""
        with self._service.state.mutation():
            view = self._view(account)
            locks.unlock(self._service, view, self._file(view, path), self._account(account), by_force=True)

    def make_paper(
        self, path: str, text: str = "", *, source_format: str = "markdown", account: str | None = None
    ) -> dict[str, Any]:
        """Create a Paper doc (or a template, .papert) with a text in html, markdown or plain_text."""
        with self._service.state.mutation():
            view, file = self._written(path, text.encode(), account)
            paper.mark_as_paper(file, source_format)
            return self._touched(view, file)

    def make_google_doc(self, path: str, exported: bytes, *, account: str | None = None) -> dict[str, Any]:
        """Create a .gdoc, .gsheet or .gslides file; `exported` is what an export of it gives."""
        with self._service.state.mutation():
            view, file = self._written(path, exported, account)
            paper.mark_as_google(file)
            return self._touched(view, file)

    def make_symlink(self, path: str, target: str, *, account: str | None = None) -> dict[str, Any]:
        """Create a symbolic link, as a desktop client uploads it."""
        with self._service.state.mutation():
            view, file = self._written(path, b"", account)
            file.extra["metadata"] = {"symlink_info": {"target": target}}
            return self._touched(view, file)

    def restrict(self, path: str, restricted: bool = True, *, account: str | None = None) -> None:
        """Block a file's content for legal reasons: reading it answers path/restricted_content."""
        with self._service.state.mutation():
            view = self._view(account)
            file = self._file(view, path)
            file.extra["restricted"] = restricted
            self._service.state.touch(file)

    def _written(self, path: str, data: bytes, email: str | None) -> tuple[View, File]:
        state, view = self._service.state, self._view(email)
        with given(state.contents, [data]) as content:
            return view, mutations.commit(view, CommitInfo(path, "overwrite"), content)

    def _touched(self, view: View, file: File) -> dict[str, Any]:
        self._service.state.touch(file)
        return metadata.of_entry(view, file)

    def submit(self, request_id: str, name: str, data: bytes) -> dict[str, Any]:
        """Hand a file in for a file request, as somebody without an account does on its page."""
        state = self._service.state
        with state.mutation():
            requests = state.collection("file_request")
            request = requests[request_id]
            if not request["is_open"]:
                raise ValueError("the file request is closed")
            owner = self._service.accounts.accounts[request["account"]]
            view = self._service.view(owner)
            info = CommitInfo(f"{request['folder_id']}/{name}", autorename=True, strict_conflict=True)
            with given(state.contents, [data]) as content:
                file = mutations.commit(view, info, content)
            requests[request_id] = {**request, "file_count": request["file_count"] + 1}
            return metadata.of_entry(view, file)
