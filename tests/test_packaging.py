"""What pip makes of the project: wheels in empty environments, on every supported Python that this machine has."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.root import ROOT

SUPPORTED = ("3.11", "3.12", "3.13", "3.14")


def _runs(interpreter: Path, version: str) -> bool:
    if not interpreter.exists():
        return False
    check = f"import sys, venv; sys.exit('%d.%d' % sys.version_info[:2] != '{version}')"
    return subprocess.run([interpreter, "-c", check], capture_output=True, timeout=60, check=False).returncode == 0


def _interpreter(version: str) -> Path | None:
    """Return an interpreter of this version: the one that runs, one on PATH, or one that pyenv keeps."""
    candidates = [Path(sys.executable)]
    if (found := shutil.which(f"python{version}")) is not None:
        candidates.append(Path(found))
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates += sorted(pyenv.glob(f"versions/{version}.*/bin/python"))
    return next((candidate for candidate in candidates if _runs(candidate, version)), None)


def _run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return subprocess.run(
        command, cwd=cwd, env=inherited | environment, capture_output=True, text=True, timeout=600, check=False
    )


def _checked(*command: str | Path, cwd: Path) -> str:
    done = _run(*command, cwd=cwd)
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built from what git would give a user."""
    source = tmp_path_factory.mktemp("source")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "fs_dropbox", "sftp_gateway"):
        origin = ROOT / name
        if origin.is_dir():
            shutil.copytree(origin, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(origin, source / name)
    target = tmp_path_factory.mktemp("wheel")
    _checked(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", target, source, cwd=target)
    (built,) = target.glob("*.whl")
    return built


def _environment(folder: Path, interpreter: Path, *requirements: str) -> Path:
    _checked(interpreter, "-m", "venv", folder, cwd=folder.parent)
    python = folder / "bin" / "python"
    _checked(python, "-m", "pip", "install", "-q", "--upgrade", "setuptools", *requirements, cwd=folder.parent)
    return python


@pytest.mark.parametrize("version", SUPPORTED)
def test_wheel_imports_without_error_or_warning_beside_the_newest_setuptools(
    version: str, wheel: Path, tmp_path: Path
) -> None:
    interpreter = _interpreter(version)
    if interpreter is None:
        if version == SUPPORTED[0]:
            pytest.fail(f"Python {version} is the least that CI must have", pytrace=False)
        pytest.skip(f"no Python {version} on this machine")
    python = _environment(tmp_path / "env", interpreter, f"fs-dropbox[gateway] @ {wheel.as_uri()}")
    newest = _checked(python, "-c", "import setuptools; print(setuptools.__version__)", cwd=tmp_path)
    assert int(newest.split(".")[0]) >= 82, "the newest setuptools has no pkg_resources"
    for name in ("fs_dropbox", "sftp_gateway", "fs_dropbox.emulator"):
        done = _run(python, "-W", "error", "-c", f"import {name}", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
    opener = "import fs.opener; print(type(fs.opener.registry.get_opener('dropbox')).__name__)"
    assert _checked(python, "-c", f"import fs_dropbox; {opener}", cwd=tmp_path).strip() == "DropboxOpener"
    assert "serve" in _checked(tmp_path / "env/bin/sftp-gateway", "--help", cwd=tmp_path)
    assert (tmp_path / "env/bin/fs-dropbox").exists()


def test_backend_alone_installs_without_the_gateways_libraries(wheel: Path, tmp_path: Path) -> None:
    python = _environment(tmp_path / "env", Path(sys.executable), str(wheel))
    installed = _checked(python, "-m", "pip", "list", "--format=freeze", cwd=tmp_path).lower()
    for library in ("paramiko", "click", "msgspec", "argon2", "cryptography", "trustme"):
        assert library not in installed
    _checked(python, "-W", "error", "-c", "import fs_dropbox", cwd=tmp_path)
    for command, extra in (("sftp-gateway", "gateway"), ("fs-dropbox", "cli")):
        done = _run(tmp_path / "env/bin" / command, "--help", cwd=tmp_path)
        assert done.returncode == 2
        assert f"pip install 'fs-dropbox[{extra}]'" in done.stderr
        assert "Traceback" not in done.stderr
    done = _run(python, "-m", "fs_dropbox.emulator", cwd=tmp_path)
    assert done.returncode == 2
    assert "pip install 'fs-dropbox[emulator]'" in done.stderr
    assert "Traceback" not in done.stderr
    done = _run(python, "-c", "from fs_dropbox.emulator import Emulator", cwd=tmp_path)
    assert "pip install 'fs-dropbox[emulator]'" in done.stderr


def test_the_source_distribution_has_what_git_has(tmp_path: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no git here to compare with")
    tracked = set(_checked("git", "ls-files", cwd=ROOT).splitlines())
    source = tmp_path / "source"
    for name in tracked:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    (tmp_path / "target").mkdir()
    _checked(sys.executable, "-c", "import setuptools.build_meta as b; b.build_sdist('../target')", cwd=source)
    (built,) = (tmp_path / "target").iterdir()
    with tarfile.open(built) as archive:
        there = {name.partition("/")[2] for name in archive.getnames()}
    assert tracked - there == {".ci/run", ".gitignore"}


@pytest.mark.parametrize("module", ["fs_dropbox.cli", "sftp_gateway.__main__"])
def test_ctrl_c_while_a_program_is_being_loaded_ends_it_quietly(module: str) -> None:
    pressed = (
        "class Pressed:\n    def find_spec(self, name, *_):\n        if name == 'click': raise KeyboardInterrupt\n"
    )
    program = f"import sys\n{pressed}sys.meta_path.insert(0, Pressed())\nfrom {module} import main\nsys.exit(main())"
    done = _run(sys.executable, "-W", "ignore", "-c", program, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
