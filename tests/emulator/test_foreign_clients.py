"""Clients that know nothing of the emulator use it as if it were Dropbox: rclone, the official SDKs, curl."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fs_dropbox.emulator import Emulator
from tests.clients import client

NODE_SDK = "dropbox@10.47.0"
TIMEOUT_SECONDS = 180
Rclone = Callable[..., str]


def make_tree(folder: Path) -> dict[str, bytes]:
    """Write files of many kinds and return their content by path."""
    files = {f"many/{number:02}.txt": b"number %d" % number for number in range(40)}
    files |= {
        "empty": b"",
        "with space/and \u00fcml\u00e4ut.txt": b"x",
        "deep/er/and/deeper/file": b"deep",
        "big": os.urandom(9 << 20),
    }
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return files


def stored(emulator: Emulator, folder: str) -> dict[str, bytes]:
    """Return the content of all files below a folder of the emulator, by path."""
    files = (path for path, size in emulator.control.tree(folder).items() if size is not None)
    return {path.removeprefix(folder + "/"): emulator.control.read(path) for path in files}


@pytest.fixture
def rclone(emulator: Emulator, tmp_path: Path) -> Rclone:
    """Return a function that runs rclone; its expired access token makes it begin with a refresh."""
    program = client("rclone")
    config = tmp_path / "rclone.conf"
    token = {
        "access_token": "expired",
        "token_type": "bearer",
        "refresh_token": emulator.refresh_token,
        "expiry": "2020-01-01T00:00:00Z",
    }
    config.write_text(
        f"[dropbox]\ntype = dropbox\nclient_id = {emulator.app_key}\n"
        f"client_secret = {emulator.app_secret}\ntoken = {json.dumps(token)}\n"
    )

    def run(*arguments: str, code: int = 0) -> str:
        command = [program, "--config", str(config), "--ca-cert", str(emulator.ca_file), "--retries", "1", *arguments]
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "HTTPS_PROXY": emulator.proxy_url}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


@pytest.mark.interop
@pytest.mark.parametrize("batch_mode", ["sync", "off"])
def test_rclone(emulator: Emulator, rclone: Rclone, tmp_path: Path, batch_mode: str) -> None:
    source = tmp_path / "source"
    files = make_tree(source)
    options = ("--dropbox-batch-mode", batch_mode, "--dropbox-chunk-size", "4M")
    rclone("copy", str(source), "dropbox:Target", *options)
    assert stored(emulator, "/Target") == files
    assert "0 differences" in rclone("check", str(source), "dropbox:target")

    (source / "many/00.txt").unlink()
    (source / "many/01.txt").write_bytes(b"changed")
    (source / "new").write_bytes(b"new")
    rclone("sync", str(source), "dropbox:Target", *options)
    assert "0 differences" in rclone("check", str(source), "dropbox:Target")
    assert stored(emulator, "/Target")["many/01.txt"] == b"changed"
    assert "many/00.txt" not in stored(emulator, "/Target")

    back = tmp_path / "back"
    rclone("copy", "dropbox:Target", str(back))
    assert (back / "big").read_bytes() == files["big"]
    assert "Used:" in rclone("about", "dropbox:")

    rclone("moveto", "dropbox:Target/big", "dropbox:Other/BIG")
    rclone("copyto", "dropbox:Other/BIG", "dropbox:Other/copy")
    assert set(stored(emulator, "/Other")) == {"BIG", "copy"}
    rclone("delete", "dropbox:Other/copy")
    rclone("purge", "dropbox:Target")
    assert set(emulator.control.tree()) == {"/Other", "/Other/BIG"}
    assert "path_lookup/not_found" in rclone("purge", "dropbox:Target", code=1)


@pytest.mark.interop
def test_rclone_from_the_root(emulator: Emulator, rclone: Rclone, tmp_path: Path) -> None:
    """With its root as the remote, rclone names folders with two slashes when it lists them."""
    emulator.control.write("/Top/Sub/a.txt", b"alpha")
    assert rclone("lsf", "-R", "dropbox:").splitlines() == ["Top/", "Top/Sub/", "Top/Sub/a.txt"]
    rclone("copy", "dropbox:", str(tmp_path / "all"))
    assert (tmp_path / "all/Top/Sub/a.txt").read_bytes() == b"alpha"


@pytest.mark.interop
def test_rclone_gets_through_contention(emulator: Emulator, rclone: Rclone, tmp_path: Path) -> None:
    source = tmp_path / "source"
    files = make_tree(source)
    emulator.control.fault("files/upload", "rate_limit", count=3, after=2, reason="too_many_write_operations")
    rclone("copy", str(source), "dropbox:Target", "--transfers", "8", "--dropbox-batch-mode", "off")
    assert stored(emulator, "/Target") == files
    assert emulator.control.faults_struck == 3


PYTHON_SCRIPT = """
import sys, warnings
warnings.simplefilter("ignore")
import dropbox
from dropbox.file_transfer import Uploader
key, secret, token = sys.argv[1:]
with dropbox.Dropbox(app_key=key, app_secret=secret, oauth2_refresh_token=token) as client:
    print(client.users_get_current_account().email)
    print(client.files_upload(b"hello", "/Python/a.txt").name)
    cursor = client.files_list_folder("/Python", recursive=True).cursor
    client.files_move_v2("/python/a.txt", "/Python/b.txt")
    print(client.files_list_folder_longpoll(cursor).changes)
    print([entry.name for entry in client.files_list_folder_continue(cursor).entries])
    print(client.files_download("/python/B.TXT")[1].content)
"""


@pytest.mark.interop
def test_python_sdk_by_its_variables(emulator: Emulator) -> None:
    credentials = [emulator.app_key, emulator.app_secret, emulator.refresh_token]
    done = subprocess.run(
        [sys.executable, "-c", PYTHON_SCRIPT, *credentials],
        env={**os.environ, **emulator.environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = ["ann@example.com", "a.txt", "True", "['a.txt', 'b.txt']", "b'hello'"]
    assert done.stdout.splitlines() == expected


NODE_SCRIPT = """
const { Dropbox } = require('dropbox');
const [host, clientId, clientSecret, refreshToken] = process.argv.slice(2);
const toEmulator = (url, options) => fetch(url.replace(/^https:\\/\\/[a-z]+\\.dropbox(api)?\\.com/, host), options);
const client = new Dropbox({ clientId, clientSecret, refreshToken, fetch: toEmulator });
const big = Buffer.alloc(6 * 1024 * 1024, 7);
(async () => {
  console.log((await client.usersGetCurrentAccount()).result.email);
  console.log((await client.filesUpload({ path: '/Node/\\u00fc.txt', contents: 'hello' })).result.path_display);
  const session = (await client.filesUploadSessionStart({ contents: big })).result.session_id;
  const cursor = { session_id: session, offset: big.length };
  const commit = { path: '/Node/big' };
  const done = await client.filesUploadSessionFinish({ cursor, commit, contents: big });
  console.log(done.result.size, done.result.content_hash);
  const listed = (await client.filesListFolder({ path: '/node' })).result.entries;
  console.log(listed.map((entry) => `${entry['.tag']} ${entry.name}`).sort().join(', '));
  const file = (await client.filesDownload({ path: '/node/\\u00fc.txt' })).result;
  console.log(file.fileBinary.toString(), file.size);
  await client.filesDeleteV2({ path: '/node/big' });
  try {
    await client.filesGetMetadata({ path: '/node/big' });
  } catch (error) {
    console.log(error.status, error.error.error.path['.tag']);
  }
})().catch((error) => { console.error(error); process.exit(1); });
"""


def node_modules(*packages: str) -> Path:
    """Install packages of the npm registry once, outside of the source tree."""
    caches = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fs-dropbox-tests"
    cache = caches / "+".join(packages).replace("/", "-").replace(":", "-")
    if not (cache / "complete").is_file():
        cache.mkdir(parents=True, exist_ok=True)
        command = [client("npm"), "install", "--no-audit", "--no-fund", "--prefix", str(cache), *packages]
        subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_SECONDS)
        (cache / "complete").touch()
    return cache / "node_modules"


def run_node(emulator: Emulator, modules: Path, script: Path, *arguments: str) -> list[str]:
    """Run a script that trusts the emulator; return the lines that it prints."""
    done = subprocess.run(
        [client("node"), str(script), *arguments],
        env={**os.environ, "NODE_PATH": str(modules), "NODE_EXTRA_CA_CERTS": str(emulator.ca_file)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.interop
def test_javascript_sdk(emulator: Emulator, tmp_path: Path) -> None:
    script = tmp_path / "script.js"
    script.write_text(NODE_SCRIPT)
    credentials = [emulator.app_key, emulator.app_secret, emulator.refresh_token]
    lines = run_node(emulator, node_modules(NODE_SDK), script, emulator.url, *credentials)
    big = emulator.control.requests()
    assert lines[0] == "ann@example.com"
    assert lines[1] == "/Node/\u00fc.txt"
    assert lines[2].startswith("12582912 ")
    assert lines[3] == "file big, file \u00fc.txt"
    assert lines[4] == "hello 5"
    assert lines[5] == "409 not_found"
    assert {record.status for record in big} == {200, 409}


OLD_NODE_SCRIPT = """
const https = require('https');
const tls = require('tls');
const [port, token] = process.argv.slice(2);
// Whatever host a library names, the emulator answers.
https.globalAgent.createConnection = (options, done) =>
  tls.connect({ ...options, host: '127.0.0.1', port, servername: options.servername || options.host }, done);
const streams = require('dropbox-stream');
const { Dropbox } = require('old-dropbox');
const toEmulator = (url, options) =>
  fetch(url.replace(/^https:\\/\\/[a-z]+\\.dropboxapi\\.com/, `https://127.0.0.1:${port}`), options);
const client = new Dropbox({ accessToken: token, fetch: toEmulator });
const upload = (path, content) => new Promise((done, failed) => {
  const stream = streams.createDropboxUploadStream({ token, path, chunkSize: 1 << 20 });
  stream.on('metadata', done).on('error', failed).resume().end(content);
});
const download = async (path) => {
  const blocks = [];
  for await (const block of streams.createDropboxDownloadStream({ token, path })) blocks.push(block);
  return Buffer.concat(blocks);
};
(async () => {
  const big = Buffer.alloc(5 << 19, 7);
  console.log((await upload('/Old/\u00fc', big)).path_display, (await upload('/old/\u00dc', big.subarray(1))).name);
  console.log((await download('/old/\u00fc')).equals(big));
  const listed = await client.filesListFolder({ path: '/old', include_media_info: true });
  console.log(listed.entries.map((entry) => entry.name).sort().join());
  const { cursor } = await client.filesListFolderGetLatestCursor({ path: '/old' });
  const polled = client.filesListFolderLongpoll({ cursor, timeout: 30 });
  await client.filesCreateFolder({ path: '/old/made' });
  console.log((await polled).changes);
  await client.filesMove({ from_path: '/old/made', to_path: '/old/moved' });
  console.log((await client.filesListFolderContinue({ cursor: listed.cursor })).entries.map((e) => e.name).join());
  await client.filesMove({ from_path: '/old/made', to_path: '/old/again' }).catch((e) => console.log(e.status));
})().catch((error) => { console.error(error); process.exit(1); });
"""


@pytest.mark.interop
def test_javascript_libraries_of_former_years(emulator: Emulator, tmp_path: Path) -> None:
    """One of them begins upload sessions without any argument; the SDK calls routes that have a second version now."""
    modules = node_modules("old-dropbox@npm:dropbox@4.0.30", "dropbox-stream@3.2.0")
    script = tmp_path / "script.js"
    script.write_text(OLD_NODE_SCRIPT)
    lines = run_node(emulator, modules, script, str(emulator.port), emulator.access_token())
    assert lines == ["/Old/\u00fc \u00dc (1)", "true", "\u00dc (1),\u00fc", "true", "made,moved", "409"]


@pytest.mark.interop
def test_curl(emulator: Emulator) -> None:
    """The examples of the HTTP documentation."""

    def curl(*arguments: str) -> str:
        command = [client("curl"), "-sS", "--cacert", str(emulator.ca_file), "-H", f"Authorization: Bearer {token}"]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=30, check=True)
        return done.stdout

    token = emulator.access_token()
    octets = ("-H", "Content-Type: application/octet-stream")
    url = f"{emulator.url}/2/files"
    uploaded = curl("-X", "POST", f"{url}/upload", *octets, "-H", 'Dropbox-API-Arg: {"path":"/c"}', "-d", "hello")
    assert json.loads(uploaded)["size"] == 5
    assert curl("-X", "POST", f"{url}/download", "-H", 'Dropbox-API-Arg: {"path":"/c"}') == "hello"
    account = curl("-X", "POST", f"{emulator.url}/2/users/get_current_account")
    assert json.loads(account)["email"] == "ann@example.com"
