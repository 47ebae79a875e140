"""The benchmarks run; what they measure is theirs to say."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fs import errors

from benchmarks import table
from benchmarks.__main__ import main
from benchmarks.harness import OURS, Measured, Row, Stage, Target, Task, run_row
from benchmarks.memory_gateway import FreeFS
from benchmarks.processes import cpu_seconds, family, memory
from tests.clients import client
from tests.waiting import eventually


def run(tmp_path: Path, *rows: str) -> dict[str, dict[str, object]]:
    """Run rows in small and return them by name, as they were written to the file."""
    client("rclone")
    file = tmp_path / "results.json"
    assert main(["--quick", "--json", str(file), *(f"--only={row}" for row in rows)]) == 0
    return {row["row"]: row for row in json.loads(file.read_text())}


def test_rows_are_measured_beside_their_peers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = run(tmp_path, "stat", "write-large")
    stat, large = rows["stat"]["results"], rows["write-large"]["results"]
    assert stat[OURS]["cold"]["calls"] == {"files/get_metadata": 1}  # type: ignore[index]
    assert stat[OURS]["warm"]["calls"] == stat[OURS]["absent"]["calls"] == {}  # type: ignore[index]
    assert all(rows["stat"]["targets"].values())  # type: ignore[attr-defined]
    for side in (OURS, "rclone"):
        line = large[side][""]  # type: ignore[index]
        assert line["wire_bytes"] > 20e6
        assert line["seconds"] > 0.03
        assert line["memory_bytes"] > 20e6
    table_lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table_lines}) == 1
    assert table_lines[-1].rstrip(" |").endswith("x")


def test_a_row_that_cannot_be_measured_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_row(row: Row, **_: object) -> dict[str, dict[str, Measured]]:
        if row.name == "decode":
            raise RuntimeError("sdk failed (exit code 1)")
        return {OURS: {"": Measured(1.0, 1.0, 1)}}

    monkeypatch.setattr("benchmarks.__main__.run_row", run_row)
    file = tmp_path / "results.json"
    assert main(["--quick", "--json", str(file), "--only=decode", "--only=write-one"]) == 1
    assert [row["row"] for row in json.loads(file.read_text())] == ["write-one"]
    assert "decode: not measured: sdk failed (exit code 1)" in capsys.readouterr().out


def test_rows_that_are_repeated_tell_the_median_of_each_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def task(stage: Stage) -> None:
        raise NotImplementedError

    def peer(stage: Stage) -> None:
        raise NotImplementedError

    seconds: dict[Task, Iterator[tuple[float, float]]] = {
        task: iter([(9.0, 1.0), (2.0, 5.0), (4.0, 3.0)]),
        peer: iter([(1.0, 1.0), (8.0, 2.0), (6.0, 9.0)]),
    }
    asked = []

    def run_task(which: Task, **_: object) -> dict[str, Measured]:
        asked.append(which)
        put, get = next(seconds[which])
        return {"put": Measured(put, put / 2, 1), "get": Measured(get, get / 2, 1)}

    monkeypatch.setattr("benchmarks.harness._run_task", run_task)
    row = Row("row", "", task, peers=[("peer", peer)], needs_account=False, repeats=3)
    results = run_row(row, quick=False, tell=lambda _: None)
    assert asked == [task, peer] * 3, "in turns, so that a slow minute is everybody's"
    assert {side: [lines["put"].seconds, lines["get"].seconds] for side, lines in results.items()} == {
        OURS: [4.0, 3.0],
        "peer": [6.0, 2.0],
    }
    assert results[OURS]["put"].cpu_seconds == 2.0, "of the same run"


def test_a_process_that_is_gone_counts_nothing() -> None:
    """Servers have some that end between being listed and being looked at."""
    with subprocess.Popen(["sleep", "60"]) as process:
        assert memory(process.pid, "VmRSS") > 0
        assert process.pid in family(os.getpid())
        process.kill()
        status = Path(f"/proc/{process.pid}/status")
        eventually(lambda: "State:\tZ" in status.read_text())
        assert memory(process.pid, "VmRSS") == 0, "it has ended, and nobody has asked how"
    assert family(process.pid) == [process.pid]
    assert (memory(process.pid, "VmRSS"), cpu_seconds(process.pid)) == (0, 0.0)


def test_files_that_cost_nothing_are_files_all_the_same() -> None:
    with FreeFS() as free:
        free.makedirs("/d/e")
        free.writebytes("/d/f", b"first")
        with pytest.raises(errors.FileExists):
            free.openbin("/d/f", "xb")
        with pytest.raises(errors.ResourceNotFound):
            free.openbin("/none/f", "wb")
        with pytest.raises(errors.FileExpected):
            free.openbin("/d/e", "r")
        unfinished: Any = free.openbin("/d/f", "wb")
        unfinished.write(b"never seen")
        unfinished.abort()
        unfinished.close()
        assert free.readbytes("/d/./f") == b"first"
        free.setinfo("/d/f", {"details": {"modified": 1_500_000_000}})
        free.move("/d/f", "/d/e/g")
        assert [(info.name, info.is_dir) for info in free.scandir("/d")] == [("e", True)]
        assert [info.name for info in free.scandir("/d/e")] == free.listdir("/d/e") == ["g"]
        assert free.getinfo("/d/e/g", ["details"]).size == 5
        with pytest.raises(errors.DirectoryNotEmpty):
            free.removedir("/d/e")
        with pytest.raises(errors.DirectoryExpected):
            free.listdir("/d/e/g")
        free.remove("/d/e/g")
        free.removedir("/d/e")
        assert free.isempty("/d")
        assert not free.exists("/d/e/g")


@pytest.mark.soak
def test_every_row_runs(tmp_path: Path) -> None:
    assert len(run(tmp_path)) > 10


def test_rows_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert {"walk", "decode", "stat", "tree", "read-large", "write-large", "mirror"} <= set(names)
    assert main(["--only", "nothing of the kind"]) == 2
    assert "--list" in capsys.readouterr().err


def test_targets_and_ratios_are_told() -> None:
    def task(stage: Stage) -> None:
        raise NotImplementedError

    row = Row("row", "", task, peers=[("peer", task)], targets=[Target("fast", lambda r: r[OURS][""].seconds < 1)])
    results = {OURS: {"": Measured(2.0, 0.1, 10**8)}, "peer": {"": Measured(5.0, 0.2, 10**7)}}
    assert "2.5x" in list(table.row_lines(row, results))[1]
    assert list(table.row_notes(row, results)) == ["row: fast: MISSED"]
    assert json.loads(table.as_json([(row, results)]))[0]["targets"] == {"fast": False}
