"""`DropboxFS` with the constructor of fs.dropboxfs: for programs that come from there, change the import alone."""

from __future__ import annotations

from typing import Any

from fs_dropbox.dropboxfs import DropboxFS as _DropboxFS

__all__ = ["DropboxFS"]


class DropboxFS(_DropboxFS):
    """`fs_dropbox.DropboxFS`, taking its arguments in the order and by the names of fs.dropboxfs.

    Arguments:
        access_token, refresh_token, app_key, app_secret: as fs.dropboxfs 1.x has them, in this order.
        accessToken, refreshToken: the same by the names of fs.dropboxfs before.
        options: everything else that `fs_dropbox.DropboxFS` takes.

    Raises:
        fs.errors.CreateFailed: the credentials are refused, or make no sense.
        fs.errors.RemoteConnectionError: Dropbox cannot be reached.
    """

    def __init__(
        self,
        access_token: str | None = None,
        refresh_token: str | None = None,
        app_key: str | None = None,
        app_secret: str | None = None,
        *,
        accessToken: str | None = None,  # noqa: N803
        refreshToken: str | None = None,  # noqa: N803
        **options: Any,
    ) -> None:
        refresh_token = refresh_token or refreshToken
        super().__init__(
            app_key,
            app_secret,
            refresh_token,
            # fs.dropboxfs takes both and prefers what lasts.
            access_token=None if refresh_token else access_token or accessToken,
            **options,
        )
