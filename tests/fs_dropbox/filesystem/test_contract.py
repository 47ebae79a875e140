"""PyFilesystem2's own conformance suite: at the root, in a sub-folder, with caching off, from three threads."""

from __future__ import annotations

import itertools
import threading
import unittest
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fs.base import FS
from fs.test import FSTestCases

from fs_dropbox import DropboxFS
from fs_dropbox.emulator import Emulator
from tests.fs_dropbox.accounts import open_account


class _Contract(FSTestCases):
    """The suite over one emulator for each class; each test has an app folder of its own to call its root."""

    arguments: dict[str, Any] = {}
    emulator: Emulator

    # fs 2.4.16 uses a name that Python 3.12 has dropped.
    assertRaisesRegexp = unittest.TestCase.assertRaisesRegex

    @classmethod
    def setUpClass(cls) -> None:
        cls.emulator = Emulator().start()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.emulator.stop()

    def open_account(self) -> DropboxFS:
        emulator = self.emulator
        return open_account(
            emulator,
            **self.arguments,
        )

    def make_fs(self) -> FS:
        dropbox_fs = self.open_account()
        dropbox_fs.removetree("/")
        return dropbox_fs


class TestRoot(_Contract, unittest.TestCase):
    """At the root of the account."""


class TestSubFolder(_Contract, unittest.TestCase):
    """In a sub-folder."""

    def make_fs(self) -> FS:
        self.account = super().make_fs()
        return self.account.makedirs("Some Folder/Ünder it")

    def destroy_fs(self, fs: FS) -> None:
        fs.close()
        self.account.close()


class TestWithoutCache(_Contract, unittest.TestCase):
    """With caching off."""

    arguments = {"cache": False}


class TestThreads(unittest.TestCase):
    """The suite in three threads at once, each in a folder of its own of one shared filesystem."""

    def test_three_threads(self) -> None:
        account_folders = itertools.count()
        with (
            Emulator() as emulator,
            open_account(emulator) as shared,
        ):
            lock = threading.Lock()

            class Case(FSTestCases, unittest.TestCase):
                assertRaisesRegexp = unittest.TestCase.assertRaisesRegex

                def make_fs(self) -> FS:
                    with lock:
                        number = next(account_folders)
                    return shared.makedirs(f"threads/{number}")

            def run(_: int) -> unittest.TestResult:
                result = unittest.TestResult()
                unittest.defaultTestLoader.loadTestsFromTestCase(Case).run(result)
                return result

            with ThreadPoolExecutor(3) as pool:
                results = list(pool.map(run, range(3)))
        for result in results:
            assert result.testsRun > 70
            problems = [text for _, text in (*result.errors, *result.failures)]
            assert not problems, "\n".join(problems)
