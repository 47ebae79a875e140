"""How sessions act at random where files are delivered later: one step, and what of it is known to have happened."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fs import errors
from fs.path import basename, dirname, join

from sftp_gateway.files.folding import fold_path, is_at_or_below
from sftp_gateway.files.tree import TreeView
from sftp_gateway.sftp.status import RefusedError
from tests.sftp_gateway.write_back.delivering_looking import FILES, Looking
from tests.sftp_gateway.write_back.delivering_model import Operation
from tests.sftp_gateway.write_back.delivering_process import Process

REFUSALS = (RefusedError, errors.FSError, OSError, sqlite3.Error)


class Acting(Looking):
    """Has somebody do something to some path; the number of contents so far makes each one unlike all others."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__(folder, seed)
        self.number = 0

    # -- choosing

    def somebody(self) -> tuple[Process, TreeView]:
        process = self.chance.choice(self.processes)
        return process, self.chance.choice(process.views)

    def some_path(self, paths: tuple[str, ...] = FILES) -> str:
        there = [path for path in paths if path in self.shown()] if self.chance.random() < 0.5 else []
        path = self.chance.choice(there or paths)
        if self.chance.random() < 0.1:
            path = join(dirname(path), basename(path).upper())
        return path

    def some_bytes(self) -> bytes:
        self.number += 1
        return f"{self.number}.".encode() + b"x" * self.chance.choice([0, 0, 3, 10, 30, 50])

    # -- acting

    def act(
        self,
        process: Process,
        what: str,
        work: Callable[[], Any],
        apply: Callable[[], None],
        happened: Callable[[], bool],
        *paths: str,
    ) -> bool:
        """Do what a session asks for; tell whether it was acknowledged. `happened` looks where nobody answered."""
        if process.dead:
            return False
        self.say(f"  {process.name} {what}")
        self.count_what_happened()
        keys = {fold_path(path) for path in paths}
        if any(self.are_at_odds(keys, process, what, other) for other in self.in_progress):
            self.say("  not at the same time")
            return False
        operation = Operation(what, process, keys, apply, happened)
        outer_touched, self.touched = self.touched, set()
        self.in_progress.append(operation)
        result = "killed"
        try:
            with self.acting("session", process):
                try:
                    work()
                    result = "ok"
                except REFUSALS as error:
                    result = "refused"
                    self.say(f"  refused: {type(error).__name__} {error}")
            if result == "ok":
                operation.count()
            elif result == "killed":
                self.say("  nobody answers")
                operation.count_if_it_happened()
            else:
                assert not operation.is_applied, f"{what} was refused and took place"
        finally:
            self.in_progress.remove(operation)
            self.disturbed = self.touched
            self.touched = outer_touched | self.touched | keys
        return result == "ok"

    def count_what_happened(self) -> None:
        """Have what was asked for before, and is done but not answered, count before what comes now."""
        for operation in self.in_progress:
            operation.count_if_it_happened()

    def are_at_odds(self, keys: set[str], process: Process, what: str, other: Operation) -> bool:
        """Tell whether two sessions change names that have to do with each other, so that nobody knows who is first."""
        is_of_names = not (what.startswith("closes") and other.name.startswith("closes") and process is other.process)
        return is_of_names and any(
            is_at_or_below(key, each) or is_at_or_below(each, key) for key in keys for each in other.keys
        )

    def others_change(self, path: str) -> None:
        self.touched.add(fold_path(path))

    def is_disturbed(self, *paths: str) -> bool:
        """Tell whether others have changed something at, above or below one of these paths meanwhile."""
        keys = [fold_path(path) for path in paths]
        return any(is_at_or_below(key, other) or is_at_or_below(other, key) for key in keys for other in self.disturbed)
