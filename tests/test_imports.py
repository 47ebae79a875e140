"""Imports run one way, in the layers that docs/architecture.md states."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.root import ROOT

PACKAGES = ("fs_dropbox", "sftp_gateway")


def _module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _sources() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def _imported(path: Path, *, at_run_time_only: bool = True) -> Iterator[str]:
    """Yield the absolute names of what a source file imports, type-checking blocks left out."""
    tree = ast.parse(path.read_text())
    skipped: set[ast.AST] = set()
    if at_run_time_only:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
                skipped.update(child for statement in node.body for child in ast.walk(statement))
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            for alias in node.names:
                submodule = ROOT.joinpath(*module.split("."), f"{alias.name}.py")
                yield f"{module}.{alias.name}" if submodule.exists() else module


def _graph() -> dict[str, set[str]]:
    known = {_module_name(path) for path in _sources()}
    return {
        _module_name(path): {name for name in _imported(path) if name in known} - {_module_name(path)}
        for path in _sources()
    }


def test_no_import_cycles() -> None:
    graph = _graph()
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"import cycle: {' -> '.join((*trail[trail.index(module) :], module))}"
        if module in done:
            return
        for target in sorted(graph[module]):
            if target not in PACKAGES:  # a package's __init__ only re-exports
                visit(target, (*trail, module))
        done.add(module)

    for module in sorted(graph):
        visit(module, ())


def _layers(package: str) -> dict[str, int]:
    """Return part of the package -> its height; parts are modules and sub-packages, the lowest has height 0."""
    name = package.split(".")[-1]
    line = re.search(rf"^{name}: +(.+)$", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
    assert line
    layers = reversed(line[1].split(" > "))
    return {part: height for height, layer in enumerate(layers) for part in layer.split(", ")}


@pytest.mark.parametrize("package", [*PACKAGES, "fs_dropbox.emulator"])
def test_layers_import_lower_layers_only(package: str) -> None:
    heights = _layers(package)
    folder = ROOT.joinpath(*package.split("."))
    parts = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert {part for part in parts if not part.startswith("_")} - {"emulator"} == set(heights) - {"emulator"}

    def part(module: str) -> str | None:
        rest = module.removeprefix(f"{package}.")
        return rest.split(".")[0] if rest != module and rest.split(".")[0] in heights else None

    for module, targets in _graph().items():
        for target in targets:
            importer, imported = part(module), part(target)
            if importer and imported and importer != imported:
                assert heights[imported] < heights[importer], f"{module} imports {target}"


@pytest.mark.parametrize("path", _sources(), ids=_module_name)
def test_packages_keep_apart(path: Path) -> None:
    """The gateway knows no Dropbox; the backend knows no SSH; only the demo reaches the emulator."""
    module = _module_name(path)
    for name in _imported(path):
        top = name.split(".")[0]
        if module.startswith("sftp_gateway"):
            assert top not in ("dropbox", "cachetools"), f"{module} imports {name}"
            assert top != "fs_dropbox" or module == "sftp_gateway.commands.demo", f"{module} imports {name}"
        else:
            assert top not in ("sftp_gateway", "paramiko"), f"{module} imports {name}"
        if module.startswith("fs_dropbox.emulator"):
            assert top != "dropbox", f"{module} imports {name}: the emulator is not shaped by the SDK"
            inside = (
                name.startswith(("fs_dropbox.emulator", "fs_dropbox.content_hash")) or name == "fs_dropbox._version"
            )
            assert top != "fs_dropbox" or inside, f"{module} imports {name}"
        elif top == "fs_dropbox" and module.startswith("fs_dropbox"):
            assert not name.startswith("fs_dropbox.emulator"), f"{module} imports {name}"


def test_two_modules_know_the_sdk_and_http() -> None:
    users = {
        _module_name(path)
        for path in _sources()
        for name in _imported(path)
        if name.split(".")[0] in ("dropbox", "requests", "urllib3")
    }
    users = {user for user in users if not user.startswith("fs_dropbox.emulator")}
    assert users == {"fs_dropbox.api.pool", "fs_dropbox.api.transport"}


def test_every_source_states_its_purpose() -> None:
    for path in _sources():
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no module docstring"


def test_nothing_is_imported_from_a_test() -> None:
    """What tests share is in helpers and fixtures: a test may be moved, split or removed by itself."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                names = [*(node.module or "").split("."), *(alias.name for alias in node.names if not node.module)]
                assert not [name for name in names if name.startswith("test_")], (
                    f"{path.relative_to(ROOT)}:{node.lineno}"
                )
