"""Batches and their jobs: shapes of success and failure, per entry."""

from __future__ import annotations

from typing import Any

import pytest

from .raw_api import Api, bare

TAG = "too_many_write_operations"


def run(api: Api, route: str, arg: Any, check: str) -> list[dict[str, Any]]:
    answer = api.ok(api.rpc(route, arg))
    if answer[".tag"] == "async_job_id":
        answer = api.ok(api.rpc(check, {"async_job_id": answer["async_job_id"]}))
    assert answer[".tag"] == "complete"
    return list(answer["entries"])


def test_delete_batch(api: Api) -> None:
    api.put("/a", b"x")
    api.put("/folder/b", b"x")
    arg = {"entries": [{"path": "/a"}, {"path": "/none"}, {"path": "/folder"}]}
    entries = run(api, "files/delete_batch", arg, "files/delete_batch/check")
    assert [e[".tag"] for e in entries] == ["success", "failure", "success"]
    assert entries[0]["metadata"][".tag"] == "file"
    assert bare(entries[1]["failure"]) == "path_lookup/not_found"
    assert api.emulator.control.tree() == {}


def test_move_and_copy_batches_nest_their_success(api: Api) -> None:
    api.put("/a", b"x")
    arg = {"entries": [{"from_path": "/a", "to_path": "/b"}, {"from_path": "/none", "to_path": "/c"}]}
    entries = run(api, "files/copy_batch_v2", arg, "files/copy_batch/check_v2")
    assert entries[0] == {
        ".tag": "success",
        "success": api.ok(api.rpc("files/get_metadata", {"path": "/b"})),
    }
    assert entries[1]["failure"][".tag"] == "relocation_error"
    assert bare(entries[1]["failure"]) == "relocation_error/from_lookup/not_found"
    entries = run(api, "files/move_batch_v2", arg, "files/move_batch/check_v2")
    assert bare(entries[0]["failure"]) == "relocation_error/to/conflict/file"


def test_delete_batch_with_parent_revs(api: Api) -> None:
    rev = api.put("/a", b"x")["rev"]
    entries = [{"path": "/a", "parent_rev": "0123456789"}, {"path": "/a", "parent_rev": rev}]
    stale, right = run(api, "files/delete_batch", {"entries": entries}, "files/delete_batch/check")
    assert bare(stale["failure"]) == "path_write/conflict/file"
    assert right[".tag"] == "success"


@pytest.mark.parametrize("how", ["declared", "by others"])
def test_contention_is_told_entry_by_entry(api: Api, how: str) -> None:
    api.put("/a", b"x")
    moves = {"entries": [{"from_path": "/a", "to_path": "/b"}]}
    session = api.ok(api.upload("files/upload_session/start", {"close": True}, b"x"))["session_id"]
    commit = {"cursor": {"session_id": session, "offset": 1}, "commit": {"path": "/c"}}
    calls = [
        ("files/delete_batch", {"entries": [{"path": "/a"}]}, ["files/delete_batch/check"], TAG),
        ("files/move_batch_v2", moves, ["files/move_batch/check_v2"], TAG),
        ("files/create_folder_batch", {"paths": ["/d"]}, ["files/create_folder_batch/check"], f"path/{TAG}"),
        ("files/upload_session/finish_batch_v2", {"entries": [commit]}, [], TAG),
    ]
    control, limits = api.emulator.control, api.emulator.service.limits
    root = control.account()["root_info"]["root_namespace_id"]
    for route, arg, check, told in calls:
        if how == "declared":
            control.fault(route, TAG)
            answer = api.ok(api.rpc(route, arg))
        else:
            control.latency(commit_seconds=0.001, patience_seconds=0.0)
            with limits.commit(root):
                answer = api.ok(api.rpc(route, arg))
            control.latency(commit_seconds=0.0)
        if answer.get(".tag") == "async_job_id":
            answer = api.ok(api.rpc(check[0], {"async_job_id": answer["async_job_id"]}))
        assert [bare(entry["failure"]) for entry in answer["entries"]] == [told], route
    assert control.tree() == {"/a": 1}


@pytest.mark.parametrize("held", ["source", "target"])
def test_a_move_between_namespaces_needs_both_locks(api: Api, held: str) -> None:
    control, limits = api.emulator.control, api.emulator.service.limits
    shared = control.share_folder("/Shared")
    api.put("/Shared/a", b"x")
    api.put("/b", b"x")
    home = control.account()["root_info"]["root_namespace_id"]
    source, target = ("/Shared/a", "/c") if (held == "source") else ("/b", "/Shared/b")
    move = {"from_path": source, "to_path": target}
    control.latency(commit_seconds=0.001, patience_seconds=0.0)
    with limits.commit(shared):
        assert api.rpc("files/move_v2", move).status_code == 429
        moved = run(api, "files/move_batch_v2", {"entries": [move]}, "files/move_batch/check_v2")
    assert [bare(entry["failure"]) for entry in moved] == [TAG]
    with limits.commit(shared if held == "source" else home):  # a copy only reads what it copies
        copied = run(api, "files/copy_batch_v2", {"entries": [move]}, "files/copy_batch/check_v2")
    assert [entry[".tag"] for entry in copied] == ["success"]


def test_create_folder_batch_makes_a_path_once_and_answers_every_place(api: Api) -> None:
    api.put("/taken", b"x")
    arg = {"paths": ["/a/b", "/A/B", "/taken"], "autorename": False}
    answer = api.ok(api.rpc("files/create_folder_batch", arg))
    assert answer[".tag"] == "complete"
    assert [e[".tag"] for e in answer["entries"]] == ["success", "success", "failure"]
    assert ".tag" not in answer["entries"][0]["metadata"]
    assert answer["entries"][0] == answer["entries"][1]
    assert answer["entries"][0]["metadata"]["name"] == "b", "the first spelling is the one that is made"
    assert bare(answer["entries"][2]["failure"]) == "path/conflict/file"
    twice = api.ok(api.rpc("files/create_folder_batch", {"paths": ["/a/b", "/a/b"], "autorename": True}))
    assert [e["metadata"]["name"] for e in twice["entries"]] == ["b (1)", "b (1)"]


def test_create_folder_batch_becomes_a_job_when_it_is_large_or_told_to(api: Api) -> None:
    many = api.ok(api.rpc("files/create_folder_batch", {"paths": [f"/{n}" for n in range(100)]}))
    job = {"async_job_id": many["async_job_id"]}
    assert len(api.ok(api.rpc("files/create_folder_batch/check", job))["entries"]) == 100
    forced = api.ok(api.rpc("files/create_folder_batch", {"paths": ["/c"], "force_async": True}))
    assert forced[".tag"] == "async_job_id"
    assert forced["async_job_id"].startswith("dbjid:")


def test_how_batches_answer_is_a_switch(api: Api) -> None:
    api.emulator.options.batch_answer = "complete"
    assert api.ok(api.rpc("files/delete_batch", {"entries": []})) == {".tag": "complete", "entries": []}
    api.emulator.options.batch_answer = "job"
    assert api.ok(api.rpc("files/create_folder_batch", {"paths": ["/x"]}))[".tag"] == "async_job_id"
