"""What a test may do to the emulator behind the clients' backs: seed, change, declare faults, count.

The same abilities are HTTP routes below /_emulator/ for tests in other processes.
"""

from __future__ import annotations

import base64
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fs_dropbox.emulator.control.accounts import AccountControl
from fs_dropbox.emulator.control.content import ContentControl
from fs_dropbox.emulator.faults import Fault
from fs_dropbox.emulator.http import Request, Response
from fs_dropbox.emulator.limits import recorded_latency
from fs_dropbox.emulator.meter import Record
from fs_dropbox.emulator.model import metadata, mutations
from fs_dropbox.emulator.model.contents import BLOCK_BYTES
from fs_dropbox.emulator.model.errors import CallError, PathLookupError
from fs_dropbox.emulator.model.mutations import CommitInfo, given
from fs_dropbox.emulator.model.tree import Entry, File, Folder
from fs_dropbox.emulator.model.view import View
from fs_dropbox.emulator.service import Service
from fs_dropbox.emulator.web import registry


class Control(AccountControl, ContentControl):
    """Changes of a foreign client, faults and counters. Thread-safe; paths are those of the default account's root
    unless another account is named by its e-mail address."""

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        faults, meter = service.faults, service.meter
        self.clear_faults, self.release = faults.clear, faults.release
        # Since the last reset_counts():
        self.calls, self.bytes_in, self.bytes_out = meter.calls, meter.bytes_in, meter.bytes_out
        self.peak_concurrency, self.under_way, self.requests = meter.peak, meter.running, meter.records
        self.reset_counts = meter.reset

    # Content ----------------------------------------------------------------

    def write(
        self, path: str, data: bytes, client_modified: int | None = None, *, account: str | None = None
    ) -> dict[str, Any]:
        """Store a file as a foreign client would, replacing what is there; return its metadata."""
        state = self._service.state
        with given(state.contents, [data]) as content, state.mutation():
            view = self._view(account)
            info = CommitInfo(path, "overwrite", client_modified=client_modified)
            return metadata.of_entry(view, mutations.commit(view, info, content))

    def seed(
        self, path: str, data: bytes | None = None, client_modified: int | None = None, *, account: str | None = None
    ) -> dict[str, Any]:
        """Create a file, or a folder when there is no data and it is not there yet."""
        if data is not None:
            return self.write(path, data, client_modified, account=account)
        with self._service.state.mutation():
            view = self._view(account)
            existing = self._find(view, path)
            return metadata.of_entry(view, existing or mutations.create_folder(view, path))

    def seed_from(self, folder: str | os.PathLike[str], path: str = "", *, account: str | None = None) -> None:
        """Copy a local folder with everything below to a path, times included.

        Raises OSError for what cannot be read, and ValueError for a name that Dropbox does not take.
        """
        for local in sorted(Path(folder).rglob("*")):
            target = f"{path}/{local.relative_to(folder).as_posix()}"
            try:
                if local.is_dir():
                    self.seed(target, account=account)
                elif local.is_file():
                    self._seed_file(local, target, account)
            except CallError as error:
                raise ValueError(f"{str(local)!r} cannot be in a Dropbox: {error}") from error

    def _seed_file(self, local: Path, target: str, account: str | None) -> None:
        state = self._service.state
        with local.open("rb") as file, given(state.contents, iter(lambda: file.read(BLOCK_BYTES), b"")) as content:
            info = CommitInfo(target, "overwrite", client_modified=int(local.stat().st_mtime))
            with state.mutation():
                mutations.commit(self._view(account), info, content)

    def delete(self, path: str, *, account: str | None = None) -> None:
        """Delete an entry as a foreign client would."""
        with self._service.state.mutation():
            self._service.state.remove(mutations.delete(self._view(account), path))

    def move(self, source: str, target: str, *, account: str | None = None) -> dict[str, Any]:
        """Move an entry as a foreign client would."""
        with self._service.state.mutation():
            view = self._view(account)
            return metadata.of_entry(view, mutations.relocate(view, source, target, move=True))

    def read(self, path: str, *, account: str | None = None) -> bytes:
        """Return the content of a file."""
        with self._service.state.lock:
            _, revision = self._view(account).find_file(path)
            return self._service.state.contents.bytes_of(revision.content_hash)

    def exists(self, path: str, *, account: str | None = None) -> bool:
        """Tell whether there is something at a path."""
        with self._service.state.lock:
            return path in ("", "/") or self._find(self._view(account), path) is not None

    def metadata(self, path: str, *, account: str | None = None) -> dict[str, Any]:
        """Return the API's metadata of an entry."""
        with self._service.state.lock:
            view = self._view(account)
            return metadata.of_entry(view, view.find(path))

    def tree(self, path: str = "", *, account: str | None = None) -> dict[str, int | None]:
        """Return everything below a path: path in display form to size, None for folders."""
        with self._service.state.lock:
            view = self._view(account)
            folder = view.find(path)
            assert isinstance(folder, Folder)
            base = view.path_of(folder)
            assert base is not None
            found = view.walk(folder, base[1])
            return {path: entry.revision.size if isinstance(entry, File) else None for path, entry in found}

    @staticmethod
    def _find(view: View, path: str) -> Entry | None:
        try:
            return view.find(path)
        except PathLookupError:
            return None

    # Faults -----------------------------------------------------------------

    def fault(
        self,
        route: str,
        kind: str,
        count: int | None = 1,
        after: int = 0,
        *,
        path: str | None = None,
        **parameters: Any,
    ) -> None:
        """Declare that calls of a route ("*": any) fail; the kinds and their parameters are those of faults.KINDS.

        Strikes `count` times (None: until cleared) after `after` calls; with `path` only calls whose argument has it.
        """
        self._service.faults.add(Fault(route, kind, count, after, parameters, path))

    @property
    def faults_struck(self) -> int:
        """How many faults have struck so far."""
        return self._service.faults.struck

    def reset_cursors(self) -> None:
        """Make every cursor void: the next use of one answers reset."""
        state, cursors = self._service.state, self._service.cursors
        with state.mutation():
            cursors.epoch += 1
            state.collection("settings")["cursors"] = {"epoch": cursors.epoch}
            state.changed.notify_all()

    def advance(self, seconds: float) -> None:
        """Let time pass at once: tokens, links and upload sessions expire, history goes."""
        self._service.ahead_seconds += float(seconds)

    def expire_tokens(self) -> None:
        """Let every access token expire now."""
        with self._service.state.mutation():
            self._service.accounts.expire_tokens()

    def revoke_tokens(self) -> None:
        """End every grant: refresh tokens and access tokens."""
        with self._service.state.mutation():
            for grant in self._service.accounts.grants.values():
                self._service.accounts.revoke(grant)

    def set_quota(self, allocated_bytes: int, *, account: str | None = None) -> None:
        """Set how many bytes an account may store."""
        self.set_account(account, allocated_bytes=allocated_bytes)

    def latency(self, **fields: Any) -> None:
        """Set fields of the latency model: see limits.Latency."""
        latency = self._service.limits.latency
        for name, value in fields.items():
            if not hasattr(latency, name):
                raise TypeError(f"the latency model has no {name!r}")
            setattr(latency, name, value)

    def recorded_latency(self, round_trip_seconds: float = 0.05, scale: float = 1.0) -> None:
        """Be as slow as recordings show the real service; `scale` makes everything faster in proportion."""
        self._service.limits.latency = recorded_latency(round_trip_seconds, scale)

    def drop_connections(self) -> None:
        """Close every connection, idle or not: what clients keep open becomes stale."""
        self._service.drop_connections()

    def options(self, **fields: Any) -> None:
        """Set switches: see options.Options."""
        for name, value in fields.items():
            if not hasattr(self._service.options, name):
                raise TypeError(f"there is no option {name!r}")
            setattr(self._service.options, name, value)


# HTTP -----------------------------------------------------------------------

MAX_BODY_BYTES = 1 << 30
# No method; and what reads local files: whoever reaches the port could read them all.
_HIDDEN = {"faults_struck", "seed_from"}


@registry.page("GET", "/_emulator")
@registry.page("POST", "/_emulator")
def control_route(service: Service, request: Request) -> Response:
    """Call a method of Control with the arguments in the JSON body; bytes in base64 as {"base64": …}."""
    control, name = Control(service), request.path.removeprefix("/_emulator").strip("/")
    methods = [known for known in dir(control) if not (known.startswith("_") or known in _HIDDEN)]
    if name not in methods:
        return _json_answer(404, {"error": f"no control route {name!r}", "routes": methods})
    body = request.read(MAX_BODY_BYTES)
    try:
        arguments = json.loads(body, object_hook=_decode) if body else {}
        return _json_answer(200, getattr(control, name)(**arguments))
    except CallError as failure:
        return _json_answer(409, {"error": str(failure)})
    except (TypeError, ValueError, KeyError, AttributeError, AssertionError) as error:  # what wrong arguments lead to
        return _json_answer(400, {"error": str(error) or repr(error)})


def _decode(value: dict[str, Any]) -> Any:
    return base64.b64decode(value["base64"]) if set(value) == {"base64"} else value


def _encode(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, Record):
        return asdict(value)
    raise TypeError(type(value).__name__)


def _json_answer(status: int, value: Any) -> Response:
    return Response(status, {"Content-Type": "application/json"}, json.dumps(value, default=_encode).encode())
