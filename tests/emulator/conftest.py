"""A running emulator, the unmodified SDK pointed to it, and raw HTTP, also as other people."""

from __future__ import annotations

from collections.abc import Iterator

import dropbox
import pytest

from fs_dropbox.emulator import Emulator

from .people import BOB, api_of
from .raw_api import Api


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator() as running:
        yield running


@pytest.fixture
def api(emulator: Emulator) -> Iterator[Api]:
    api = Api(emulator)
    yield api
    api.http.close()


@pytest.fixture
def dbx(emulator: Emulator, api: Api) -> Iterator[dropbox.Dropbox]:
    with dropbox.Dropbox(
        app_key=emulator.app_key,
        app_secret=emulator.app_secret,
        oauth2_refresh_token=emulator.refresh_token,
        session=api.http,
        max_retries_on_error=0,
        max_retries_on_rate_limit=0,
    ) as client:
        yield client


@pytest.fixture
def bob(emulator: Emulator, api: Api) -> Api:
    """Another account, without anything in it."""
    emulator.control.add_account(BOB, "Bob")
    return api_of(api, BOB)


@pytest.fixture
def space(emulator: Emulator) -> str:
    """A team in the team space: Ann is admin, Bob a member."""
    team_id = emulator.control.add_team("Acme")
    emulator.control.add_member("ann@example.com", admin=True)
    emulator.control.add_member(BOB, "Bob")
    return team_id


@pytest.fixture
def legacy(emulator: Emulator) -> str:
    """The same in the legacy layout."""
    team_id = emulator.control.add_team("Acme", team_space=False)
    emulator.control.add_member("ann@example.com", admin=True)
    emulator.control.add_member(BOB, "Bob")
    return team_id
