"""Dropbox as a PyFilesystem2 filesystem."""

from fs_dropbox._version import __version__

__all__ = ["__version__"]
