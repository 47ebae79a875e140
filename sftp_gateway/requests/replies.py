"""`Replies`: sends the replies of a channel; holds them back while the storage must catch up."""

from __future__ import annotations

import threading
from functools import partial

from sftp_gateway.files.handles import Handle, WriteHandle
from sftp_gateway.ssh.channel_stream import ChannelStream

HOLD_SECONDS = 5.0
"""The longest that a client hears nothing while it waits for the storage: some give up after 15 seconds."""


class Replies:
    """Sends replies; while a reply to a handle is held back, all later ones to that handle wait behind it.

    Owned by an `SFTPChannel`. Thread-safe: `_lock` guards what is held back, and is a leaf but for the stream's.
    """

    def __init__(self, stream: ChannelStream) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        # changed under _lock
        self.held = 0  # how many replies are held back
        self.held_bytes = 0

    def send(self, handle: Handle | None, *reply: bytes) -> None:
        """Send a reply, perhaps in pieces, that concerns a handle, if any."""
        if handle is not None and handle.held:
            self.hold(handle, b"".join(reply))
        else:
            self._stream.send(*reply)

    def hold(self, handle: Handle, reply: bytes) -> None:
        """Hold a reply back until the storage has caught up; now and then one of the handle's replies is sent."""
        with self._lock:
            handle.held.append(reply)
            self.held += 1
            self.held_bytes += len(reply)
            first = len(handle.held) == 1
        if first:
            release = partial(self.release, handle)
            self._stream.transport.call_later(HOLD_SECONDS, partial(self._release_one, handle))
            if isinstance(handle, WriteHandle):
                handle.draft.pace.when_caught_up(release)

    def release(self, handle: Handle) -> None:
        """Send what was held back."""
        if not handle.held:
            return
        with self._lock:
            while handle.held:
                self._send_first(handle)
        self._stream.wake()

    def _release_one(self, handle: Handle) -> None:
        """Send one reply, so that the client hears from us and goes on a little."""
        with self._lock:
            if handle.held:
                self._send_first(handle)
            if handle.held:
                self._stream.transport.call_later(HOLD_SECONDS, partial(self._release_one, handle))
        self._stream.wake()

    def _send_first(self, handle: Handle) -> None:
        self._stream.send(handle.held[0])
        self.held_bytes -= len(handle.held.popleft())  # after the send: `send` looks at `held` to keep the order
        self.held -= 1
