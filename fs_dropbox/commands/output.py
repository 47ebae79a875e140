"""What commands print: sizes, times, names that cannot harm a terminal, tables, JSON, progress."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import click
from fs import errors
from fs.info import Info

from fs_dropbox.mirroring.mirror import FATAL
from fs_dropbox.mirroring.steps import Action, Observer, Step, Summary

# What PyFilesystem says where no reason is given, in other words: it calls everything a resource.
PLAIN: Final[dict[type[BaseException], str]] = {
    errors.ResourceNotFound: "there is no file or folder {path}",
    errors.FileExpected: "{path} is a folder, not a file",
    errors.DirectoryExpected: "{path} is a file, not a folder",
    errors.DirectoryExists: "there is a folder {path} already",
    errors.DirectoryNotEmpty: "the folder {path} is not empty",
}
_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB")
_RATE_SECONDS: Final = 5.0
_TICK_SECONDS: Final = 1.0
_NEW_LINE: Final = "\r\033[K"  # in place of what the line of the terminal shows
_T = TypeVar("_T")

as_json = click.option("--json", "json_", is_flag=True, help="Print JSON.")


def human_size(size: float) -> str:
    """Return a size as people read it, in powers of 1000 as Dropbox shows them: "3.1 MB"."""
    for unit in _UNITS:
        if size < 999.5 or unit == _UNITS[-1]:
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" or size >= 99.5 else f"{size:.1f} {unit}"


def size_text(size: int, human: bool) -> str:
    """Return a size in bytes, or as people read it."""
    return human_size(size) if human else str(size)


def time_text(moment: datetime | None) -> str:
    """Return a time in this machine's zone, to the minute."""
    if moment is None:
        return "-"
    with contextlib.suppress(OverflowError):  # the first or the last day of all: clients store such times
        moment = moment.astimezone()
    return moment.replace(tzinfo=None).isoformat(" ", "minutes")


def json_time(moment: datetime | None) -> str | None:
    """Return a time as JSON has it: in UTC, to the second."""
    return None if moment is None else moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def shown(text: str, *, error: bool = False) -> str:
    """Return a line without what a terminal would obey, for standard output or, of an `error`, for standard error; to a
    pipe or a file it goes as it is."""
    if text.isprintable() or not (sys.stderr if error else sys.stdout).isatty():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def table(rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> None:
    """Print rows in columns; the columns in `right` are aligned to the right, the last one is not padded."""
    if not rows:
        return
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [cell.rjust(widths[i]) if i in right else cell.ljust(widths[i]) for i, cell in enumerate(row)]
        cells[-1] = row[-1] if len(row) - 1 not in right else cells[-1]
        click.echo("  ".join(cells))


def print_json(value: Any) -> None:
    """Print JSON: indented for people, one line for programs."""
    click.echo(json.dumps(value, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False))


def entry_json(path: str, info: Info) -> dict[str, Any]:
    """Return what is known of an entry, from the namespaces "details" and "dropbox"."""
    result: dict[str, Any] = {"path": path, "name": info.name, "type": "folder" if info.is_dir else "file"}
    if not info.is_dir:
        result |= {"size": info.size, "modified": json_time(info.modified)}
    for key in ("id", "rev", "content_hash", "sharing", "lock", "export", "symlink_target"):
        value = info.get("dropbox", key)
        if value:
            result[key] = value
    return result


class Progress(Observer):
    """Shows a transfer on the terminal: a bar with rate and time left, or nothing where nobody looks."""

    def __init__(
        self, label: str, *, quiet: bool, steps: bool = False, listed: Callable[[], None] = lambda: None
    ) -> None:
        """Set up.

        Args:
            quiet: show no bar even on a terminal.
            steps: print each step that is done to standard output.
            listed: called when it is known what there is to do.
        """
        self._listed = listed
        self._steps = steps
        self._begun = time.monotonic()
        self._samples: list[tuple[float, int]] = [(self._begun, 0)]
        self._bytes = 0
        self._bar = click.progressbar(
            length=0,
            label=label,
            file=sys.stderr,
            hidden=quiet or not is_watched(),
            item_show_func=lambda rate: rate or "",
            width=24,
        )
        self._bar.length = None  # until it is planned; of a stream it is never known

    def planned(self, size: int) -> None:
        """Begin to show: the total is known."""
        self._listed()
        self._bar.length = size
        self._bar.render_progress()

    def advanced(self, size: int) -> None:
        """Show the bytes that passed."""
        self._bytes += size
        now = time.monotonic()
        self._samples.append((now, self._bytes))
        while len(self._samples) > 2 and self._samples[0][0] < now - _RATE_SECONDS:
            self._samples.pop(0)
        (then, before), seconds = self._samples[0], now - self._samples[0][0]
        rate = f"{human_size((self._bytes - before) / seconds)}/s" if seconds > 0.2 and then < now else ""
        self._bar.update(size, rate if self._bar.length is not None else f"{human_size(self._bytes)}  {rate}")

    def done(self, step: Step) -> None:
        """Print a step where that is wanted; what was left out for a reason is always told."""
        if step.action is Action.SKIP and step.reason:
            self._say(f"fs-dropbox: {step.path}: left out: {step.reason}", error=True)
        elif self._steps and step.action is not Action.SKIP:
            details = f" ({step.reason}, {human_size(step.size)})" if step.action is Action.COPY else ""
            self._say(f"{step.action.value:7}{step.path}{details}")

    def failed(self, step: Step, error: Exception) -> None:
        """Tell at once; the transfer goes on."""
        self._say(f"fs-dropbox: {step.path}: {reason_of(error)}", error=True)

    def _say(self, text: str, *, error: bool = False) -> None:
        if not self._bar.hidden:
            click.echo(_NEW_LINE, nl=False, err=True)
        click.echo(shown(text, error=error), err=error)

    def finish(self) -> float:
        """End the bar; return the seconds that it took."""
        if not self._bar.hidden:
            self._bar.render_finish()
        return max(time.monotonic() - self._begun, 1e-6)


def is_watched() -> bool:
    """Tell whether a person sees standard error, on a terminal whose lines can be written anew."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


@contextlib.contextmanager
def at_work(label: str, *, quiet: bool = False) -> Iterator[Callable[[], None]]:
    """Show on a terminal for how long Dropbox has been at work, once that is long: it does not tell how far it is.

    Yields what ends that before the block does.
    """
    ended, begun = threading.Event(), time.monotonic()

    def show() -> None:
        while not ended.wait(_TICK_SECONDS):
            click.echo(f"{_NEW_LINE}{label}: Dropbox is at work, {time.monotonic() - begun:.0f} s", nl=False, err=True)
        click.echo(_NEW_LINE, nl=False, err=True)

    def end() -> None:
        ended.set()
        if clock.ident is not None:
            clock.join()

    clock = threading.Thread(target=show, name="fs-dropbox-clock", daemon=True)
    try:
        if is_watched() and not quiet:
            with contextlib.suppress(RuntimeError):  # no thread is left
                clock.start()
        yield end
    finally:
        end()


def each(items: Sequence[_T], do: Callable[[_T], object]) -> int:
    """Do something with each of several, after one that failed too, which is told; return the exit code."""
    code = 0
    for item in items:
        try:
            do(item)
        except errors.FSError as error:
            if len(items) == 1 or isinstance(error, (*FATAL, errors.CreateFailed)):
                raise
            click.echo(shown(f"fs-dropbox: {told(error)}", error=True), err=True)
            code = 1
    return code


def summary_json(summary: Summary, seconds: float) -> dict[str, Any]:
    """Return what a mirror run did, for programs."""
    failures = [{"path": step.path, "reason": reason_of(error)} for step, error in summary.failures]
    return summary.counts() | {"failures": failures, "seconds": round(seconds, 3)}


def summary_text(summary: Summary, seconds: float, *, dry_run: bool) -> str:
    """Return what a mirror run did, in a line for people."""
    would = "would be " if dry_run else ""
    parts = [f"{summary.copied} {would}copied ({human_size(summary.copied_bytes)})", f"{summary.skipped} unchanged"]
    if summary.folders:
        parts.append(f"{summary.folders} folder{'s' * (summary.folders != 1)} {would}made")
    if summary.deleted:
        parts.append(f"{summary.deleted} {would}deleted")
    if summary.ignored:
        parts.append(f"{summary.ignored} left out")
    if summary.failures:
        parts.append(f"{len(summary.failures)} FAILED")
    rate = "" if dry_run or not summary.copied_bytes else f", {human_size(summary.copied_bytes / seconds)}/s"
    return f"{', '.join(parts)} in {seconds:.1f} s{rate}"


def reason_of(error: BaseException) -> str:
    """Return an error as one line."""
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        text = getattr(error, "reason", "") or told(error) or type(error).__name__
    return " ".join(text.split())


def told(error: BaseException) -> str:
    """Return what an error says, in one line, and in words for people where PyFilesystem has given it none."""
    plain, path = PLAIN.get(type(error), ""), getattr(error, "path", None)
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - another storage's text with braces in it, which PyFilesystem takes for fields
        text = str(getattr(error, "_msg", type(error).__name__))
    if plain and path is not None and text == str(type(error)(path)):
        text = plain.format(path=path)
    return " ".join(text.split())
