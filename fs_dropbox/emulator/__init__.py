"""A local Dropbox API v2 server for demos and tests.

It speaks the wire protocol of the real service to unmodified clients and has its semantics. Imports nothing of the
project but content_hash. From the bottom up:

- `model/tree.py`: namespaces, folders, files, revisions, tombstones, journals. A namespace is a tree of its own: a
  home, an app folder, a shared folder, a team's root; a Folder with `mount` shows another namespace's root.
- `model/state.py`: State holds them, with the primitives that change them; `storage.py` and `contents.py` keep them.
- `model/view.py`: one account's look from one root (home, app folder, path root): path strings to entries and back.
- `model/mutations.py`, `cursors.py`, `sessions.py`, `accounts.py`: the rules. They raise PathLookupError, WriteError,
  SessionError or RouteError (`errors.py`) and know no HTTP.
- `service.py`: all of that in one object, with `faults.py`, `limits.py` and `meter.py`.
- `people/`: the rules of what goes beyond one person's files: consent, teams, mounts, shared folders and links, locks.
- `web/`: all between a socket and a route function. `routes/`: one such function for each API route.
- `control/`: what a test may do behind the clients' backs.

To add routes, write a module in `routes/`:

    @registry.route("sharing/list_shared_links")        # attributes (host, style, auth, scope, select-admin mode, app
    def list_shared_links(context, arg):                # folder) come from web/routes.json, are enforced in web/
        path = arg.path("path")                         # arg has the type of web/types.json: see specification.py
        with nested(), context.write(path):             # PathLookupError/WriteError -> {".tag": "path", "path": {…}}
            entry = context.view.find(path)             # the caller's own view: path root and app folder are applied
            links = context.service.state.collection("shared_link")    # a stored table of JSON documents
        return {"links": [...], "has_more": False}      # JSON; Download(...) for download-style routes

`context.write(path)` is for changes: it takes the write lock of the namespace (the source of 429s) and the state, and
stores everything at its end; `context.mutation()` is for changes outside of the tree; reading needs `with
context.service.state.lock`. `@registry.page("GET", "/oauth2/authorize")` registers whatever is not an API function:
`function(service, request) -> Response`. An entry's `extra` dict is stored with it; `extra["metadata"]` is merged into
the metadata that the API shows (is_downloadable, export_info, file_lock_info…), `extra["lock"]` stops foreign writes.
`service.accounts` adds accounts, apps, grants and tokens; `State.add_namespace` and `State.mount` build shared and team
folders; call `State.touch(entry)` after changing an entry's extras, so that cursors report it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fs_dropbox.emulator.emulator import Emulator
    from fs_dropbox.emulator.model.options import Options

__all__ = ["Emulator", "Options"]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is, and say which extra is missing."""
    if name == "Emulator":
        try:
            from fs_dropbox.emulator.emulator import Emulator
        except ModuleNotFoundError as error:
            hint = f"The emulator needs {error.name}: pip install 'fs-dropbox[emulator]'"
            raise ModuleNotFoundError(hint, name=error.name) from error

        return Emulator
    if name == "Options":
        from fs_dropbox.emulator.model.options import Options

        return Options
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
