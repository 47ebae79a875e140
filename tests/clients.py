"""Foreign clients that tests run as processes."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest


def client(name: str) -> str:
    """Return the path of the program `name`.

    Where it is missing the test is skipped on a developer's machine, and fails where REQUIRE_CLIENTS is set (as in CI).
    """
    path = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if path is None:
        if os.environ.get("REQUIRE_CLIENTS"):
            pytest.fail(f"the client {name!r} is not installed", pytrace=False)
        pytest.skip(f"the client {name!r} is not installed")
    return path


def node_modules(package: str) -> Path:
    """Return the folder in which node finds `package`: below the virtual environment, or NODE_PATH (see .ci/run)."""
    paths = os.environ.get("NODE_PATH", "").split(os.pathsep)
    for folder in (Path(sys.prefix) / "node" / "node_modules", *(Path(path) for path in paths if path)):
        if (folder / package).is_dir():
            return folder
    if os.environ.get("REQUIRE_CLIENTS"):
        pytest.fail(f"the node package {package!r} is not installed", pytrace=False)
    pytest.skip(f"the node package {package!r} is not installed")
