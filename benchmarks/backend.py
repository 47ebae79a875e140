"""The rows about the backend alone, without the gateway."""

from __future__ import annotations

from typing import Final

from benchmarks import metadata, transfers

ROWS: Final = (*metadata.ROWS, *transfers.ROWS)
