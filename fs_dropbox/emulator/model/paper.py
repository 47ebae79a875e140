"""Files without bytes of their own: Paper docs, Google docs. What they can be exported as. Knows no HTTP.

A doc's source is the content of its file; `extra["paper"]` has the format of the source and the doc's revision.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape, unescape
from typing import Any

from fs_dropbox.emulator.model.errors import RouteError
from fs_dropbox.emulator.model.tree import File

PAPER_EXTENSION = ".paper"
MAX_DOC_BYTES = 1 << 20
PAPER_EXPORT = {"export_as": "html", "export_options": ["html", "markdown"]}
EXTENSIONS = {"html": ".html", "markdown": ".md"}
# Google's docs by extension: what the service exports them as. It offers no other choice.
GOOGLE_EXPORTS = {".gdoc": "docx", ".gsheet": "xlsx", ".gslides": "pptx"}


@dataclass(slots=True, frozen=True)
class Export:
    """An exported doc."""

    name: str
    data: bytes
    paper_revision: int | None


def mark_as_paper(file: File, source_format: str, revision: int = 1) -> None:
    """Make a file a Paper doc."""
    file.extra["paper"] = {"format": source_format, "revision": revision}
    file.extra["metadata"] = {**file.extra.get("metadata", {}), "is_downloadable": False, "export_info": PAPER_EXPORT}


def mark_as_google(file: File) -> None:
    """Make a file a Google doc; its content is what an export gives."""
    export_as = GOOGLE_EXPORTS["." + file.name.rpartition(".")[2].lower()]
    shown: dict[str, Any] = {"is_downloadable": False, "export_info": {"export_as": export_as}}
    file.extra["metadata"] = {**file.extra.get("metadata", {}), **shown}


def export(file: File, data: bytes, export_format: str | None) -> Export:
    """Return a doc in a format, its own one unless given, or raise non_exportable or invalid_export_format."""
    info = file.extra.get("metadata", {}).get("export_info")
    if info is None:
        raise RouteError("non_exportable")
    wanted = export_format or info["export_as"]
    if wanted not in info.get("export_options", [info["export_as"]]):
        raise RouteError("invalid_export_format")
    stem, _, extension = file.name.rpartition(".")
    if extension.lower() == "papert":
        stem = file.name  # a template keeps its extension
    name = stem + EXTENSIONS.get(wanted, "." + wanted)
    doc = file.extra.get("paper")
    if doc is None:
        return Export(name, data, None)
    return Export(name, convert(data.decode(), doc["format"], wanted).encode(), doc["revision"])


def convert(text: str, source: str, target: str) -> str:
    """Turn a doc's source into another format: headings and paragraphs survive, the rest as plain text."""
    if source == target:
        return text
    if source == "html":
        text = re.sub(r"<h([1-6])[^>]*>", lambda match: "#" * int(match[1]) + " ", text)
        text = re.sub(r"</(?:h[1-6]|p|div|li)>|<br\s*/?>", "\n\n", text)
        text = unescape(re.sub(r"<[^>]+>", "", text))
        return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
    if target == "markdown":
        return text
    blocks = [block.strip() for block in re.split(r"\n\s*\n", text) if block.strip()]
    return "<html><body>" + "".join(_block(block) for block in blocks) + "</body></html>"


def _block(block: str) -> str:
    heading = re.match(r"(#{1,6})\s+(.*)", block)
    if heading is not None:
        level = len(heading[1])
        return f"<h{level}>{escape(heading[2])}</h{level}>"
    return f"<p>{escape(block)}</p>"
