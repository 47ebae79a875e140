"""Tags that users put on files and folders."""

from __future__ import annotations

from typing import Any

from fs_dropbox.emulator.arguments import Arguments
from fs_dropbox.emulator.model.errors import RouteError, nested, union
from fs_dropbox.emulator.web import registry
from fs_dropbox.emulator.web.context import Context

MAX_TAGS = 20


@registry.route("files/tags/add")
def add(context: Context, arg: Arguments) -> Any:
    """Put a tag on an entry."""
    path, text = arg.path("path"), arg.get("tag_text").lower()
    with nested(), context.mutation():
        entry = context.view.find(path)
        tags = entry.extra.get("tags", [])
        if text in tags:
            return
        if len(tags) >= MAX_TAGS:
            raise RouteError("too_many_tags")
        entry.extra["tags"] = [*tags, text]
        context.service.state.touch(entry)


@registry.route("files/tags/remove")
def remove(context: Context, arg: Arguments) -> Any:
    """Take a tag off an entry."""
    path, text = arg.path("path"), arg.get("tag_text").lower()
    with nested(), context.mutation():
        entry = context.view.find(path)
        if text not in entry.extra.get("tags", []):
            raise RouteError("tag_not_present")
        entry.extra["tags"] = [tag for tag in entry.extra["tags"] if tag != text]
        context.service.state.touch(entry)


@registry.route("files/tags/get")
def get(context: Context, arg: Arguments) -> Any:
    """Answer the tags of several entries."""
    paths = [Arguments({"paths": path}).path("paths") for path in arg.get("paths")]
    with nested(), context.service.state.lock:
        return {
            "paths_to_tags": [
                {
                    "path": path,
                    "tags": [
                        union("user_generated_tag", tag_text=text)
                        for text in context.view.find(path).extra.get("tags", [])
                    ],
                }
                for path in paths
            ]
        }
