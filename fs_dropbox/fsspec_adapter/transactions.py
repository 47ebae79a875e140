"""`OwnTransactions`: fsspec's transactions, each of the thread that has begun it."""

from __future__ import annotations

import threading
from typing import Any


class OwnTransactions:
    """For a filesystem whose instances several threads share: what others write meanwhile is no part of a transaction.

    fsspec keeps it with the instance: what another thread has stored, without an error, goes where the transaction
    ends with one.
    """

    @property
    def _of_thread(self) -> dict[str, Any]:
        local = self.__dict__.setdefault("_threads", threading.local())
        kept: dict[str, Any] = local.__dict__
        return kept

    @property
    def _intrans(self) -> bool:
        return bool(self._of_thread.get("in_transaction", False))

    @_intrans.setter
    def _intrans(self, value: bool) -> None:
        self._of_thread["in_transaction"] = value

    @property
    def _transaction(self) -> Any:
        return self._of_thread.get("transaction")

    @_transaction.setter
    def _transaction(self, value: Any) -> None:
        self._of_thread["transaction"] = value
