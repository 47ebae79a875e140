"""The emulator's switches: what the real service leaves open or varies, and the limits that tests want smaller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(slots=True)
class Options:
    """Every field may be changed while the emulator runs."""

    # What the documentation leaves open; the defaults are what was observed last.
    case_only_move: Literal["keep", "conflict", "rename"] = "keep"  # answered 200 but nothing changes / refused / done
    report_case_changes: bool = True  # as synchronising clients' live tests rely on; documented is False
    range_past_end: Literal["whole", "416", "409"] = "416"  # a range that begins at or after the end of the file
    astral_names: bool = True  # False: names with characters beyond U+FFFF are malformed_path
    second_finish: Literal["not_found", "closed", "repeat"] = "not_found"  # finish of a finished upload session
    overwrite_name: Literal["keep", "change"] = "keep"  # the stored name when a write spells it in another case
    delete_lists_children: bool = False  # deltas report each child of a deleted folder
    export_by_rev: bool = True  # False: documents are exported by path and by id only
    recursive_lists_root: bool = True  # a recursive listing of /x contains /x itself
    root_refusal: Literal["400", "malformed_path"] = "400"  # delete, move, create_folder of "/"
    locked_write: Literal["access_restricted", "no_write_permission"] = "access_restricted"  # upload onto a locked file
    not_found_after_create_seconds: float = 0.0  # so long a move or copy of something new answers from_lookup/not_found
    legacy_tokens_expire: bool = True  # tokens of access type legacy (or none) lived forever in former years
    rate_limit_form: Literal["json", "text"] = "json"
    rate_limit_retry_after_seconds: int | None = 1

    # The authorisation page without a person: "ask" shows the form.
    consent: Literal["ask", "approve", "deny"] = "ask"

    proxy_login: str = ""  # "user:password" that the CONNECT proxy asks for

    max_calls_per_second: int | None = None  # of one token; more answer 429 too_many_requests

    # Listings
    page_size: int = 500  # entries in a page when the call has no limit; 2000 in former years
    refuse_equal_listings: bool = False  # 429 for a listing while an equal one of the same caller runs
    uneven_pages: bool = False  # pages with fewer entries than asked for, now and then an empty one
    longpoll_jitter_seconds: float = 0.0  # up to 90 on the real service
    longpoll_backoff_seconds: int | None = None

    # Batches: as recorded, create_folder_batch answers at once and the others with a job; or all the same way.
    batch_answer: Literal["as_recorded", "complete", "job"] = "as_recorded"
    job_polls: int = 0  # so many times a job is in_progress before it is complete

    # Limits
    max_request_bytes: int = 150 * 1024 * 1024
    max_file_bytes: int = 2**41 - 2**22
    max_subtree_entries: int = 10_000  # move, copy, delete: more is too_many_files
    session_life_seconds: float = 7 * 86400
    access_token_seconds: int = 14400
    authorization_code_seconds: float = 600
    temporary_link_seconds: float = 4 * 3600
    history_seconds: float = 180 * 86400  # older revisions of replaced and deleted files are gone
    search_lag_seconds: float = 0.0  # search does not see what is newer
