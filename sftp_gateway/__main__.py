"""`python -m sftp_gateway` and the command `sftp-gateway`: says which extra is missing before anything else fails."""

from __future__ import annotations

import sys

_EXTRA = ("argon2", "click", "cryptography", "msgspec", "paramiko")


def main() -> None:
    """Run the command line."""
    try:
        from sftp_gateway.cli import main as run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        sys.stderr.write(f"sftp-gateway: {error.name} is not installed; run: pip install 'fs-dropbox[gateway]'\n")
        sys.exit(2)
    except KeyboardInterrupt:  # importing all of it takes a moment
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
