"""The loopback page takes exactly the answer that belongs to its login."""

from __future__ import annotations

import http.client
import socket
import time

import pytest

from fs_dropbox.login.redirect import Redirect, RedirectError


def _get(redirect: Redirect, target: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", redirect.port, timeout=30)
    try:
        connection.request("GET", target)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_the_code_with_the_right_state_is_taken() -> None:
    with Redirect("right", 0) as redirect:
        assert redirect.uri == f"http://localhost:{redirect.port}/"
        status, page = _get(redirect, "/?code=CODE&state=right")
        assert (status, "CODE" in page) == (200, False)
        assert redirect.wait(30) == "CODE"


@pytest.mark.parametrize(
    "query", ["code=FORGED", "code=FORGED&state=", "code=FORGED&state=wrong", "error=x&state=wrong"]
)
def test_another_state_is_refused_and_the_true_answer_still_counts(query: str) -> None:
    with Redirect("right", 0) as redirect:
        assert _get(redirect, f"/?{query}")[0] == 400
        _get(redirect, "/?code=CODE&state=right")
        assert redirect.wait(30) == "CODE"


def test_other_pages_are_not_there() -> None:
    with Redirect("right", 0) as redirect:
        for target in ("/favicon.ico", "/", "/other?code=CODE&state=right"):
            assert _get(redirect, target)[0] == 404
        with pytest.raises(RedirectError, match="within 0 seconds"):
            redirect.wait(0)


def test_a_refusal_says_so() -> None:
    with Redirect("right", 0) as redirect:
        _get(redirect, "/?error=access_denied&state=right")
        with pytest.raises(RedirectError, match="declined"):
            redirect.wait(30)
        page = _get(redirect, "/?error=invalid_scope&error_description=no+%3Cscope%3E&state=right")[1]
        assert "no &lt;scope&gt;" in page
        with pytest.raises(RedirectError, match="no <scope>"):
            redirect.wait(30)


def test_an_idle_connection_of_the_browser_keeps_nobody_waiting() -> None:
    with Redirect("right", 0) as redirect, socket.create_connection(("127.0.0.1", redirect.port)):
        begun = time.monotonic()
        assert _get(redirect, "/?code=CODE&state=right")[0] == 200
        assert time.monotonic() - begun < 8


def test_a_taken_port_is_one_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(RedirectError, match=f"port {port} .*--port"):
            Redirect("right", port)
