"""Lets scripts in web pages of any origin call the API, as the real service does (CORS). Knows no routes."""

from __future__ import annotations

from fs_dropbox.emulator.http import Request, Response

# Pages for the person who signs in, and the control, are for no script of another origin.
CLOSED = ("/oauth2/authorize", "/_emulator")
READABLE = "Dropbox-API-Result, X-Dropbox-Request-Id, Retry-After, WWW-Authenticate, Content-Range, ETag"


def is_preflight(request: Request) -> bool:
    """Tell whether a browser asks whether it may send a request; `reject_cors_preflight=true` wants that refused."""
    headers = request.headers
    return (
        request.method == "OPTIONS"
        and "origin" in headers
        and "access-control-request-method" in headers
        and request.query.get("reject_cors_preflight") != "true"
        and not request.path.startswith(CLOSED)
    )


def answer_preflight(request: Request) -> Response:
    """Return the permission to send the request."""
    headers = {
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Allow-Methods": "GET, POST",
        "Access-Control-Allow-Headers": request.headers.get("access-control-request-headers", ""),
        "Access-Control-Max-Age": "86400",
    }
    return Response(200, headers)


def open_up(request: Request, response: Response) -> None:
    """Let the script that sent a request read its answer."""
    if "origin" in request.headers and not request.path.startswith(CLOSED):
        response.headers["Access-Control-Allow-Origin"] = "*"
        response.headers["Access-Control-Expose-Headers"] = READABLE
