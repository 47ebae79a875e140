"""Ruby's net-sftp over net-ssh, which knows neither Curve25519 nor Ed25519 without further gems."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients import client

from .stack import MIB, PASSWORD, Stack, digest, digests, run, serving

pytestmark = pytest.mark.interop

BEGIN = """
require 'json'
require 'stringio'
require 'net/sftp'

def status
  yield
rescue Net::SFTP::StatusException => refused
  refused.code
end

port, password, limit = ARGV
options = {
  port: port.to_i, password: password, config: false, keys: [], use_agent: false, non_interactive: true,
  verify_host_key: :never, auth_methods: ['password', 'keyboard-interactive'], rekey_packet_limit: limit.to_i
}
Net::SFTP.start('127.0.0.1', 'bob', options) do |sftp|
"""


@pytest.fixture
def stack(bare_stack: Stack) -> Iterator[Stack]:
    """A gateway that lets older clients in."""
    with serving(bare_stack, compatible_algorithms=True):
        yield bare_stack


def ruby(stack: Stack, script: str, *, packets_before_new_keys: int = 2**31) -> Any:
    """Run a script with `sftp` signed in as bob; return what its last line yields."""
    command = [client("ruby"), "-", str(stack.port), PASSWORD, str(packets_before_new_keys)]
    done = run(command, stdin=f"{BEGIN}puts JSON.generate([begin\n{script}\nend])\nend", folder=stack.folder)
    assert done.code == 0, done.err
    return json.loads(done.out)[0]


@pytest.mark.write_back
def test_a_tree_goes_up_and_comes_back(stack: Stack) -> None:
    names = [f"{folder}{number}" for folder in ("", "Grüße/", "a/b/c d/") for number in range(8)]
    tree = {name: digest(stack.write(f"tree/{name}", os.urandom(1000)).read_bytes()) for name in names}
    (stack.folder / "tree" / "empty folder").mkdir()
    found = ruby(
        stack,
        """
        sftp.upload!('tree', '/there', mkdir: true)  # asks for files in folders before these are answered
        sftp.download!('/there', 'back', recursive: true)
        sftp.dir.glob('/there', '**/*').map { |entry| entry.name.dup.force_encoding('UTF-8') }
        """,
    )
    assert digests(stack.folder / "back") == tree
    assert tree.keys() <= set(found)
    assert "empty folder" in found
    assert stack.stored("/there") == tree


def test_files_are_opened_appended_to_and_renamed(stack: Stack) -> None:
    found = ruby(
        stack,
        """
        sftp.file.open('/new', 'w') { |file| file.puts('one', 'two') }
        sftp.file.open('/new', 'a') { |file| file.write('three') }
        sftp.file.open('/new', 'r+') { |file| file.write('ONE') }
        sftp.rename!('/new', '/Grüße')
        sftp.upload!(StringIO.new('other'), '/other')
        sftp.setstat!('/other', size: 2, mtime: 1_000_000_000, atime: 1_000_000_000, permissions: 0600)
        [sftp.download!('/Grüße'), sftp.stat!('/other').size, sftp.stat!('/').directory?, sftp.realpath!('.').name,
         status { sftp.rename!('/other', '/Grüße') }, status { sftp.stat!('/missing') },
         status { sftp.mkdir!('/other') }, status { sftp.rmdir!('/other') },
         status { sftp.symlink!('other', '/link') }, status { sftp.close!('nothing') }]
        """,
    )
    assert found == ["ONE\ntwo\nthree", 2, True, "/", 4, 2, 4, 4, 8, 4]
    assert stack.stored() == {"Grüße": digest(b"ONE\ntwo\nthree"), "other": digest(b"ot")}


def test_new_keys_are_exchanged_amid_transfers(stack: Stack) -> None:
    content = stack.write("file", os.urandom(MIB + 1)).read_bytes()
    ruby(stack, "sftp.upload!('file', '/file')\nsftp.download!('/file', 'back')", packets_before_new_keys=20)
    assert (stack.folder / "back").read_bytes() == content
    assert stack.stored() == {"file": digest(content)}
