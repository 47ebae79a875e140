"""The entry point of the command line: says what is missing when its libraries are, else hands over to `commands`."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line and return the exit code."""
    try:
        import click  # noqa: F401
    except ImportError:
        print("fs-dropbox needs its command-line libraries: pip install 'fs-dropbox[cli]'", file=sys.stderr)
        return 2
    from fs_dropbox.commands.program import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
