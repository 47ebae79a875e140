"""`Sharing`: the API's calls about links, and about shared folders that are not mounted. Knows no HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from fs_dropbox.api import routes
from fs_dropbox.api.calls import Caller
from fs_dropbox.api.routes import Route
from fs_dropbox.errors import ApiError

T = TypeVar("T")


class SharedFolder(NamedTuple):
    """A folder that others share with the account, by the id of its namespace."""

    name: str
    namespace_id: str


class Sharing:
    """One method for each route in use, as Client has them. Thread-safe; owned by the Client."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def temporary_link(self, path: str) -> str:
        """Return a link to a file's content (also "rev:…") that anyone can download for 4 hours."""
        return self._call(routes.TEMPORARY_LINK, {"path": path}, lambda result: str(result["link"]), path)

    def shared_link(self, path: str) -> str:
        """Return the shared link of a file or folder, made where there is none.

        Raises ApiError ("shared_link_already_exists", …) where there is one that Dropbox does not tell.
        """
        try:
            return self._call(routes.CREATE_SHARED_LINK, {"path": path}, lambda result: str(result["url"]), path)
        except ApiError as error:
            if error.tag[:1] != ("shared_link_already_exists",):
                raise
            links = self.shared_links(path)
            if not links:
                raise
            return links[0]

    def shared_links(self, path: str) -> list[str]:
        """Return the shared links that a file or folder has itself."""
        argument = {"path": path, "direct_only": True}
        return self._call(
            routes.LIST_SHARED_LINKS, argument, lambda result: [str(link["url"]) for link in result["links"]], path
        )

    def mountable_folders(self) -> list[SharedFolder]:
        """Return the shared folders of which the account is a member, and which it has not mounted."""
        folders, cursor = self._call(routes.LIST_MOUNTABLE_FOLDERS, {}, _decode_folders, "")
        while cursor:
            argument = {"cursor": cursor}
            found, cursor = self._call(routes.LIST_MOUNTABLE_FOLDERS_CONTINUE, argument, _decode_folders, "")
            folders += found
        return folders

    def _call(self, route: Route, argument: Any, decode: Callable[[Any], T], path: str) -> T:
        try:
            return self._caller.call(route, argument, decode=decode)
        except ApiError as error:
            error.path = path
            raise


def _decode_folders(result: dict[str, Any]) -> tuple[list[SharedFolder], str | None]:
    folders = [SharedFolder(entry["name"], entry["shared_folder_id"]) for entry in result["entries"]]
    return folders, result.get("cursor")
