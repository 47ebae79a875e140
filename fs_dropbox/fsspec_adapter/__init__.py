"""The same filesystem in fsspec's terms: `fsspec.filesystem("dropbox", …)`."""

from fs_dropbox.fsspec_adapter.filesystem import DropboxFileSystem

__all__ = ["DropboxFileSystem"]
