"""Which account an fsspec filesystem opens, who shares it, and what it is to others: threads, processes, pickles."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import fsspec
import pytest

from fs_dropbox.emulator import Emulator
from fs_dropbox.fsspec_adapter.filesystem import DropboxFileSystem
from fs_dropbox.login.connections import Connection, Connections
from tests.fs_dropbox.accounts import access_to
from tests.waiting import DEADLINE_SECONDS, eventually


def test_an_fs_url_names_account_and_file(emulator: Emulator) -> None:
    emulator.control.write("/Reports/März.csv", b"a,b\n1,2\n")
    url = f"dropbox://{emulator.app_key}~{emulator.app_secret}:{quote(emulator.refresh_token, safe='')}@/Reports/"
    parameters = f"?api_host={quote(emulator.host)}&ca_certs={quote(str(emulator.ca_file))}"
    try:
        with fsspec.open(f"{url}{quote('März.csv')}{parameters}", "rt", newline="") as file:
            assert file.read() == "a,b\n1,2\n"
    finally:
        DropboxFileSystem.clear_instance_cache()


@pytest.mark.usefixtures("dropbox")  # which closes all accounts
def test_an_fs_url_passes_through_all_functions_of_fsspec(emulator: Emulator) -> None:
    """pandas' to_parquet, zarr and others hand their options to functions that call the path `url`."""
    filesystem, path = fsspec.core.url_to_fs("dropbox://data/one.bin", fs_url=emulator.fs_url)
    filesystem.pipe(path, b"content")
    assert fsspec.get_mapper("dropbox://data", fs_url=emulator.fs_url)["one.bin"] == b"content"


@pytest.mark.usefixtures("dropbox")  # which closes all accounts
def test_a_token_is_taken_as_dropboxdrivefs_takes_it(emulator: Emulator) -> None:
    token = emulator.access_token()
    options = {"api_host": emulator.host, "ca_certs": str(emulator.ca_file)}
    assert fsspec.filesystem("dropbox", token=token, **options).ls("/") == []
    hidden = fsspec.filesystem("dropbox", token=token, **options).to_json(include_password=False)
    assert token not in hidden


def test_a_stored_connection_needs_no_credentials(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(OSError, match="fs-dropbox login"):
        DropboxFileSystem().ls("/")
    with pytest.raises(OSError, match=r"\{Work\}"):
        DropboxFileSystem(connection="{Work}").ls("/")
    user = f"{emulator.app_key}~{emulator.app_secret}"
    url = f"dropbox://{user}:{quote(emulator.refresh_token, safe='')}@/?api_host={emulator.host}"
    Connections().put(Connection("Work", f"{url}&ca_certs={quote(str(emulator.ca_file))}"))
    try:
        for options in ({}, {"connection": "work"}):
            with fsspec.open("dropbox://hello.txt", "wb", **options) as file:
                file.write(b"hello")
        assert emulator.control.read("/hello.txt") == b"hello"
        for options in ({}, {"connection": "work"}, {"fs_url": Connections().find("work").url}):
            assert DropboxFileSystem(**options, documents="hide").filesystem.getmeta("dropbox")["documents"] == "hide"
        with pytest.raises(OSError, match="there is no connection 'other'"):
            DropboxFileSystem("other").ls("/")
        with pytest.raises(OSError, match="Give a connection, an fs_url or credentials"):
            DropboxFileSystem("work", refresh_token="another").ls("/")
    finally:
        DropboxFileSystem.clear_instance_cache()


def test_threads_share_one_account(emulator: Emulator) -> None:
    accounts = []

    def work() -> None:
        accounts.append(DropboxFileSystem(**access_to(emulator)).filesystem)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    DropboxFileSystem.clear_instance_cache()
    assert len(accounts) == 8
    assert len(set(map(id, accounts))) == 1
    assert accounts[0].isclosed()


def test_accounts_end(emulator: Emulator) -> None:
    before = set(threading.enumerate())
    dropbox = DropboxFileSystem(**access_to(emulator))
    assert dropbox.ls("/") == []
    DropboxFileSystem.clear_instance_cache()
    assert {thread for thread in threading.enumerate() if "fs-dropbox" in thread.name} <= before
    assert dropbox.ls("/") == []  # opened anew
    DropboxFileSystem.clear_instance_cache()


def test_a_pickled_file_reads_on_elsewhere(emulator: Emulator, dropbox: DropboxFileSystem) -> None:
    """As Dask takes the files to its workers that xarray has opened."""
    dropbox.pipe("/a", b"0123456789")
    with dropbox.open("/a") as file:
        assert file.read(3) == b"012"
        pickled = pickle.dumps(file)
    with pickle.loads(pickled) as there:
        assert there.read() == b"3456789"
    emulator.control.write("/a", b"replaced")
    filesystem: Any = dropbox.filesystem
    filesystem.forget("/a")
    with pickle.loads(pickled) as there:
        assert there.read() == b"3456789"
    with dropbox.open("/a", "wb") as file, pytest.raises(OSError, match="open for writing"):
        pickle.dumps(file)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # that is what this is about
def test_a_forked_process_has_an_account_of_its_own(emulator: Emulator, dropbox: DropboxFileSystem) -> None:
    dropbox.pipe("/a", b"old")
    struck, uploads = emulator.control.faults_struck, emulator.control.calls()["files/upload"]
    emulator.control.fault("files/upload", "stall", at="answer")
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(dropbox.pipe, "/a", b"new")
        eventually(lambda: emulator.control.faults_struck > struck)
        forked = multiprocessing.get_context("fork").Process(target=dropbox.pipe, args=("/b", b"forked"))
        forked.start()
        forked.join(DEADLINE_SECONDS)
        forked.kill()
        forked.join()
        assert forked.exitcode == 0
        emulator.control.release()
        writing.result(DEADLINE_SECONDS)
    assert (emulator.control.read("/a"), emulator.control.read("/b")) == (b"new", b"forked")
    assert emulator.control.calls()["files/upload"] == uploads + 2


def test_options_may_be_lists_and_pass_through_json(emulator: Emulator) -> None:
    opened = [DropboxFileSystem(**access_to(emulator), export=formats) for formats in (["html"], ("html",))]
    opened.append(DropboxFileSystem.from_json(opened[1].to_json()))
    assert [each.ls("/") for each in opened] == [[], [], []]
    assert len({id(each.filesystem) for each in opened}) == 1
    DropboxFileSystem.clear_instance_cache()


def test_a_pickle_opens_the_same(emulator: Emulator, dropbox: DropboxFileSystem) -> None:
    dropbox.pipe("/a", b"1")
    assert pickle.loads(pickle.dumps(dropbox)).cat("/a") == b"1"
    described = json.loads(dropbox.to_json(include_password=False))
    assert described["app_key"] == emulator.app_key
    for text in (json.dumps(described), repr(dropbox), str(dropbox)):
        assert emulator.refresh_token not in text
        assert emulator.app_secret not in text
