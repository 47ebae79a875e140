"""The entry point of the command line: says what is missing when its libraries are, else hands over to `commands`."""

from __future__ import annotations

import io
import sys


def main() -> int:
    """Run the command line and return the exit code."""
    try:
        from fs_dropbox.commands.program import run
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        print("fs-dropbox needs its command-line libraries: pip install 'fs-dropbox[cli]'", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # importing all of it takes a moment
        return 130
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # letters that this terminal does not have
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
