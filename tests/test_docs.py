"""The documents tell the truth: what they name exists."""

from __future__ import annotations

import ast
import re
import textwrap
import tomllib

import pytest

from fs_dropbox.emulator import Emulator
from fs_dropbox.opener import PARAMETERS
from tests.root import ROOT


def _tests() -> set[str]:
    names = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                names.add(f"{path.name}::{node.name}")
    return names


def test_every_test_that_the_semantics_name_exists() -> None:
    named = re.findall(r"\[(test_\w+\.py::test_\w+)\]", (ROOT / "docs/semantics.md").read_text())
    assert len(named) > 50
    assert not sorted(set(named) - _tests())


DOCUMENTS = sorted(str(path.relative_to(ROOT)) for folder in (ROOT, ROOT / "docs") for path in folder.glob("*.md"))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_test_that_a_document_names_exists(document: str) -> None:
    named = re.findall(r"\[(test_\w+\.py::test_\w+)\]", (ROOT / document).read_text())
    assert not sorted(set(named) - _tests())


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{document}: {target}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_examples_can_be_read(document: str) -> None:
    for kind, text in re.findall(r"^ *```(python|toml)\n(.*?)^ *```", (ROOT / document).read_text(), re.M | re.S):
        (ast.parse if kind == "python" else tomllib.loads)(textwrap.dedent(text))


@pytest.mark.parametrize("document", ["README.md", "docs/emulator.md"])
def test_examples_over_dropbox_run(document: str) -> None:
    blocks = re.findall(r"^```python\n(import fs\n.*?)^```", (ROOT / document).read_text(), re.M | re.S)
    assert blocks
    with Emulator() as emulator:
        for block in blocks:
            credentials, parameters = emulator.fs_url.split("@/")
            text = re.sub(r'"dropbox://[^"]*@/(\w+)"', rf'"{credentials}@/\1{parameters}"', block)
            exec(compile(text, document, "exec"), {})


@pytest.mark.parametrize("document", DOCUMENTS)
def test_lines_of_prose_are_no_longer_than_those_of_code(document: str) -> None:
    text = re.sub(r"^ *```.*?^ *```", "", (ROOT / document).read_text(), flags=re.MULTILINE | re.DOTALL)
    prose = [line for line in text.splitlines() if not line.startswith(("|", "    "))]
    assert not [line for line in prose if len(line) > 120]


def test_the_architecture_names_every_module_and_no_other() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    chapters = dict(re.findall(r"^##+ ([a-z_/]+)\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL))
    described = ("commands", "emulator")  # of fs_dropbox: in a row of their own, in a document of their own
    folders = [ROOT / "fs_dropbox", ROOT / "sftp_gateway"]
    folders += [path.parent for folder in folders for path in folder.glob("*/__init__.py")]
    for folder in folders:
        if folder.parent.name == "fs_dropbox" and folder.name in described:
            continue
        there = {path.name for path in folder.glob("*.py") if not path.name.startswith("_")}
        chapter = chapters[str(folder.relative_to(ROOT))]
        assert set(re.findall(r"^\| `([a-z]\w*\.py)`", chapter, re.MULTILINE)) == there, folder


def test_every_parameter_of_a_url_is_documented() -> None:
    rows = [row for row in (ROOT / "docs/configuration.md").read_text().splitlines() if row.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert set(PARAMETERS) <= named
