"""Runs the benchmarks: python -m benchmarks."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from pathlib import Path
from typing import Final

from benchmarks import table
from benchmarks.harness import Row, run_row

MODULES: Final = ("benchmarks.backend", "benchmarks.sftp_layer", "benchmarks.gateway")


def main(arguments: list[str] | None = None) -> int:
    """Run the rows asked for and print the table.

    Returns 1 when a target is missed (but not with --quick), or a row could not be measured; that costs no other row.
    """
    options = _parser().parse_args(arguments)
    rows = [row for name in MODULES for row in importlib.import_module(name).ROWS]
    if options.list:
        for row in rows:
            print(f"{row.name:28} {row.title}")
        return 0
    unknown = set(options.only or ()) - {row.name for row in rows}
    if unknown:
        print(f"No such row: {', '.join(sorted(unknown))}; --list shows them", file=sys.stderr)
        return 2
    chosen = [row for row in rows if not options.only or row.name in options.only]
    done = _run(chosen, quick=options.quick)
    if options.json is not None:
        options.json.write_text(table.as_json(done))
    missed = any(not target.is_met(results) for row, results in done for target in row.targets)
    return int(len(done) < len(chosen) or (missed and not options.quick))


def _run(rows: list[Row], *, quick: bool) -> list[tuple[Row, table.Lines]]:
    done: list[tuple[Row, table.Lines]] = []
    print(table.head(), flush=True)
    notes: list[str] = []
    for row in rows:
        try:
            results = run_row(row, quick=quick, tell=lambda text: print(text, file=sys.stderr, flush=True))
        except RuntimeError as error:  # of a peer, perhaps, which is no reason to lose hours of others' results
            notes.append(f"{row.name}: not measured: {error}")
            continue
        done.append((row, results))
        print("\n".join(table.row_lines(row, results)), flush=True)
        notes += table.row_notes(row, results)
    print("\n" + "\n".join(notes))
    return done


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="How fast it is, beside its peers.")
    parser.add_argument("--list", action="store_true", help="show the rows")
    parser.add_argument("--only", action="append", metavar="NAME", help="only this row; may be given more than once")
    parser.add_argument("--quick", action="store_true", help="small sizes and short delays; the ratios mean nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything that was started is ended
    sys.exit(main())
