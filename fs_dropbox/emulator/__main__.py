"""Runs the emulator alone: python -m fs_dropbox.emulator."""

from __future__ import annotations

import argparse
import errno
import shlex
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fs_dropbox.emulator.emulator import Emulator

DEFAULT_PORT = 8443


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM; return the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.seed is not None and not options.seed.is_dir():
        parser.error(f"argument --seed: there is no folder {options.seed}")
    try:
        from fs_dropbox.emulator import Emulator
    except ModuleNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    emulator = Emulator(options.folder, options.port, address=options.address)
    for number in (signal.SIGINT, signal.SIGTERM):  # at any moment, also while it copies a seed
        signal.signal(number, signal.default_int_handler)
    try:
        failure = _start(emulator, options)
        if failure is not None:
            print(f"The emulator cannot start: {failure}", file=sys.stderr)
            return 1
        _tell(emulator, plain=options.http)
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        emulator.stop()
    return 0


def _start(emulator: Emulator, options: argparse.Namespace) -> str | None:
    """Start, with the seed where there is nothing yet; return why that fails."""
    try:
        emulator.start()
    except OSError as error:
        return f"{error.filename or f'{options.address}:{options.port}'}: {_reason(error)}"
    if options.seed is not None and not emulator.control.tree():
        try:
            emulator.control.seed_from(options.seed)
        except (OSError, ValueError) as error:
            return f"--seed: {error}"
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fs_dropbox.emulator",
        description="A local Dropbox for demos and tests. HTTPS, HTTP and a CONNECT proxy on one port.",
    )
    parser.add_argument("--port", type=_port, default=DEFAULT_PORT, help="0: any free one (default: %(default)s)")
    parser.add_argument("--address", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="keep everything in this folder (default: in memory)")
    parser.add_argument("--seed", type=Path, metavar="DIR", help="copy this folder into an empty Dropbox first")
    parser.add_argument("--http", action="store_true", help="print the addresses without TLS")
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text} is no port: they are numbers up to 65535")
    return int(text)


def _reason(error: OSError) -> str:
    """Why it cannot start, and what to do where that is known."""
    if error.errno == errno.EADDRINUSE:
        return "the port is in use; choose another with --port, or any free one with --port 0"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address"
    if isinstance(error, FileExistsError):
        return "is not a folder"
    return error.strerror or str(error)


def _tell(emulator: Emulator, *, plain: bool) -> None:
    print(f"Dropbox emulator at {emulator.http_url if plain else emulator.url}")
    print(f"App key, secret, refresh token: {emulator.app_key} {emulator.app_secret} {emulator.refresh_token}")
    print(f"FS URL: {emulator.plain_fs_url if plain else emulator.fs_url}")
    print("For the Dropbox SDK and others that read the environment:")
    for name, value in emulator.environment.items():
        print(f"  export {name}={shlex.quote(value)}")
    print(f"For clients with fixed host names: export HTTPS_PROXY={emulator.proxy_url}")
    print("Ready; Ctrl-C ends it.", flush=True)


if __name__ == "__main__":
    sys.exit(main())
