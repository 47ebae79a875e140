"""The results as a table for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict

from benchmarks.harness import OURS, Measured, Row

Lines = Mapping[str, Mapping[str, Measured]]
_HEAD = ("row", "by", "calls", "bytes", "seconds", "CPU s", "memory", "ratio")


def head() -> str:
    """Return the head of the table, in Markdown."""
    return f"{_line(_HEAD)}\n{_line(['---'] * len(_HEAD))}"


def row_lines(row: Row, results: Lines) -> Iterator[str]:
    """Yield a row's lines: each of ours, then the peers' of the same label with how many times as long they took."""
    for label, ours in results[OURS].items():
        yield _line((f"{row.name}: {label}" if label else row.name, OURS, *_cells(ours), ""))
        for peer, _ in row.peers:
            theirs = results[peer].get(label)
            if theirs is not None:
                ratio = theirs.seconds / ours.seconds if ours.seconds else 0.0
                yield _line(("", peer, *_cells(theirs), f"{ratio:.1f}x"))


def row_notes(row: Row, results: Lines) -> Iterator[str]:
    """Yield what else was measured, and which targets are met."""
    for label, ours in results[OURS].items():
        if ours.numbers:
            numbers = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in ours.numbers.items())
            yield f"{row.name}{': ' if label else ''}{label}: {numbers}"
    for target in row.targets:
        yield f"{row.name}: {target.text}: {'met' if target.is_met(results) else 'MISSED'}"


def as_json(rows: list[tuple[Row, Lines]]) -> str:
    """Return everything that was measured."""
    document = [
        {
            "row": row.name,
            "title": row.title,
            "targets": {target.text: target.is_met(results) for target in row.targets},
            "results": {
                side: {label: asdict(line) for label, line in lines.items()} for side, lines in results.items()
            },
        }
        for row, results in rows
    ]
    return json.dumps(document, indent=1) + "\n"


def _cells(line: Measured) -> tuple[str, ...]:
    return (
        str(line.all_calls),
        _size(line.wire_bytes),
        f"{line.seconds:.2f}",
        f"{line.cpu_seconds:.2f}",
        _size(line.memory_bytes),
    )


def _size(size: int) -> str:
    if size < 1e6:
        return f"{size / 1e3:.0f} kB"
    return f"{size / 1e6:.0f} MB"


def _line(cells: tuple[str, ...] | list[str]) -> str:
    widths = (26, 12, 6, 8, 8, 7, 8, 6)
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"
