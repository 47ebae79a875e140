"""The emulator's own certificate authority, so that clients can check its certificate as they check any other."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme

NAMES = (
    "127.0.0.1",
    "::1",
    "localhost",
    "api.dropboxapi.com",
    "content.dropboxapi.com",
    "notify.dropboxapi.com",
    "www.dropbox.com",
    "dropbox.com",
    "dl.dropboxusercontent.com",
)


def make_certificates(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Return the file of the authority and the server's TLS settings; made once per folder."""
    ca_file = folder / "ca.pem"
    server_file = folder / "server.pem"
    if not (ca_file.exists() and server_file.exists()):
        authority = trustme.CA(organization_name="Dropbox emulator")
        certificate = authority.issue_cert(*NAMES)
        server_file.touch(mode=0o600)
        server_file.write_bytes(
            certificate.private_key_pem.bytes() + b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
        )
        authority.cert_pem.write_to_path(str(ca_file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server_file)
    return ca_file, context
