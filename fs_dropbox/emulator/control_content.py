"""Control over what is special about content: shared with others, locked, not downloadable, restricted."""

from __future__ import annotations

from typing import Any

from . import shared_folders, shared_links
from .control_parts import ControlPart
from .errors import PathLookupError
from .tree import Folder, Namespace


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
            if isinstance(entry, Folder) and entry.mount is not None and entry.mount.kind in shared_folders.KINDS:
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

    def unshare_folder(self, namespace_id: str, *, leave_a_copy: bool = False) -> None:
        """End a shared folder, as its owner does."""
        with self._service.state.mutation():
            namespace = self._service.state.namespaces[namespace_id]
            owner = self._service.accounts.accounts[str(namespace.owner)]
            shared_folders.unshare(self._service, owner, namespace, leave_a_copy=leave_a_copy)

    def unmount(self, namespace_id: str, *, account: str | None = None) -> None:
        """Hide a shared folder from an account's Dropbox, as it does itself."""
        with self._service.state.mutation():
            namespace = self._service.state.namespaces[namespace_id]
            shared_folders.unmount(self._service, self._account(account), namespace)

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
