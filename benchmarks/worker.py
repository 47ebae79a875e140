"""The process in which one task runs: takes its order from standard input."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.harness import perform

if __name__ == "__main__":
    perform(json.load(sys.stdin), Path(sys.argv[1]))
