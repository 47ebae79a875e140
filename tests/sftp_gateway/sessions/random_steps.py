"""What sessions do at random: single requests, and what real clients send in one go."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from tests.sftp_gateway.raw_client import A, C, R, T, W, X
from tests.sftp_gateway.sessions.random_session import Actor

Step = Callable[[Actor], None]

FLAGS = (W | C | T, W | C | T, W | C, W, R | W, R | W | C, W | C | A, W | T, W | C | X, R | W | C | T, W | C | T | A)


def write_a_file(actor: Actor) -> None:
    key = actor.some_key()
    if key not in actor.model.writers and len(actor.model.writers) < 4:
        writer = actor.open(key, actor.chance.choice(FLAGS))
        if writer is not None and actor.chance.random() < 0.7:
            actor.write_somewhere(writer)


def go_on(actor: Actor) -> None:
    if actor.model.writers:
        writer = actor.chance.choice(list(actor.model.writers.values()))
        does = actor.chance.choice(
            (actor.write_somewhere,) * 3
            + (actor.resize, actor.set_time, actor.sync, actor.look, actor.read_back)
            + (actor.close,) * 4
        )
        does(writer)


def put(actor: Actor) -> None:
    """As FileZilla and WinSCP do with small files: all at once, the time last."""
    key = actor.some_key()
    if key in actor.model.writers:
        return
    with actor.burst() if actor.chance.random() < 0.7 else contextlib.nullcontext():
        writer = actor.open(key, W | C | T, "put")
        if writer is None:
            return
        for _ in range(actor.chance.randrange(3)):
            actor.write(writer, actor.some_bytes(), len(writer.content))
        if actor.chance.random() < 0.3:
            actor.set_time(writer)
        actor.close(writer)
        if actor.chance.random() < 0.6:
            actor.set_committed_time(key)
        if actor.chance.random() < 0.5:
            actor.stat(key)


def put_through_filepart(actor: Actor) -> None:
    """As WinSCP does with large files: REMOVE + RENAME."""
    key = actor.some_key()
    part = key + ".filepart"
    if not actor.model.can_hold(key) or {key, part} & {*actor.model.writers, *actor.model.folders}:
        return
    with actor.burst() if actor.chance.random() < 0.5 else contextlib.nullcontext():
        flags = W | C if part in actor.model.partials else W | C | T
        writer = actor.open(part, flags, "put as .filepart")
        assert writer is not None
        actor.write(writer, actor.some_bytes(), len(writer.content))
        actor.close(writer)
        if actor.chance.random() < 0.5:
            actor.rename(part, key, replace=True)
        else:
            if actor.model.size(key) is not None:
                actor.remove(key)
            actor.rename(part, key, replace=False)
        if actor.chance.random() < 0.7:
            actor.set_committed_time(key)
        actor.stat(key)


def put_again_and_again(actor: Actor) -> None:
    """Version after version, and what must not bring one of them back."""
    key = actor.some_key()
    if key in actor.model.writers or key in actor.model.folders or not actor.model.can_hold(key):
        return
    for _ in range(actor.chance.randrange(1, 4)):
        writer = actor.open(key, W | C | T, "put again")
        assert writer is not None
        actor.write(writer, actor.some_bytes(), 0)
        actor.close(writer)
        if actor.chance.random() < 0.3:
            actor.place.stir(actor.chance)
    if actor.chance.random() < 0.5:
        actor.remove(key)
    else:
        actor.rename(key, actor.some_key(), replace=True)
    actor.stat(key)


def put_and_get_with_paramiko(actor: Actor) -> None:
    """On another channel of the same session."""
    key, content, time = actor.some_key(), actor.some_bytes(), actor.some_time()
    if key in actor.model.writers or key in actor.model.folders or not actor.model.can_hold(key):
        return
    path = actor.path(key)
    actor.log.append(f"paramiko: put and get {path}, {len(content)} bytes")
    with actor.session.sftp() as client:
        with client.open(path, "w") as file:
            file.set_pipelined(True)
            for offset in range(0, len(content), 8192):
                file.write(content[offset : offset + 8192])
        actor.model.commit(key, path.rpartition("/")[2], content, None)
        client.utime(path, (time, time))
        actor.time_is_set(key, time)
        assert client.stat(path).st_size == len(content), actor.log[-1]
        with client.open(path, "r") as file:
            file.prefetch()
            assert file.read() == content, actor.log[-1]
    actor.stat(key)


def copy(actor: Actor) -> None:
    source, target = actor.a_file(), actor.some_key()
    model = actor.model
    if source not in model.files or source in model.writers or target in model.writers or source == target:
        return
    content = model.files[source].content
    handle = actor.raw.opened(actor.path(source), R)
    writer = actor.open(target, W | C | T, "copy to")
    if writer is not None:
        actor.copy_data(handle, content, writer)
        if actor.chance.random() < 0.3:
            actor.rename(source, actor.some_key(), replace=False)
        elif actor.chance.random() < 0.2:
            actor.write_somewhere(writer)
    actor.close_reader(handle)
    if writer is not None:
        actor.close(writer)


def rename(actor: Actor) -> None:
    chance = actor.chance
    if chance.random() < 0.25 and len(actor.model.folders) > 1:
        source = chance.choice(list(actor.model.folders)[1:])
        target = chance.choice((actor.some_folder(), actor.some_folder(), actor.some_key()))
    else:
        source = actor.a_file()
        target = chance.choice((actor.some_key(), actor.some_key(), actor.some_key(), actor.some_folder(), source))
    actor.rename(source, target, replace=chance.random() < 0.5)
    actor.stat(source)
    actor.stat(target)


def remove(actor: Actor) -> None:
    key = actor.a_file()
    actor.remove(key)
    actor.stat(key)


def make_folder(actor: Actor) -> None:
    key = actor.some_folder() if actor.chance.random() < 0.9 else actor.some_key()
    if actor.chance.random() < 0.3 and key not in actor.model.writers:
        with actor.burst():
            actor.mkdir(key)
            inside = f"{key}/{actor.fold(actor.prefix + 'inside')}"
            writer = actor.open(inside, W | C | X)
            if writer is not None:
                actor.close(writer)
    else:
        actor.mkdir(key)
    actor.stat(key)


def remove_folder(actor: Actor) -> None:
    if len(actor.model.folders) > 1:
        key = actor.chance.choice(list(actor.model.folders)[1:])
        if actor.chance.random() < 0.5:
            for file in [file for file in actor.model.below(key) if file.rpartition("/")[0] == key]:
                if file not in actor.model.folders:
                    actor.remove(file)
        actor.rmdir(key)
        actor.stat(key)


def look(actor: Actor) -> None:
    actor.stat(actor.a_file() if actor.chance.random() < 0.8 else actor.some_folder())


def list_a_folder(actor: Actor) -> None:
    actor.list(actor.chance.choice(list(actor.model.folders)))


def read(actor: Actor) -> None:
    key = actor.a_file()
    if key not in actor.model.folders:
        actor.read(key, whole=actor.chance.random() < 0.7)


def read_on(actor: Actor) -> None:
    if actor.readers:
        actor.read_on(actor.chance.choice(actor.readers))


def change_size(actor: Actor) -> None:
    key = actor.a_file()
    if key not in actor.model.folders:
        actor.set_size(key)
        actor.stat(key)


def change_time(actor: Actor) -> None:
    key = actor.a_file()
    actor.set_committed_time(key)
    actor.stat(key)


def cut(actor: Actor) -> None:
    actor.cut()


def stir(actor: Actor) -> None:
    actor.place.stir(actor.chance)


STEPS: dict[Step, int] = {
    write_a_file: 14,
    go_on: 34,
    put: 8,
    put_through_filepart: 4,
    put_again_and_again: 3,
    put_and_get_with_paramiko: 2,
    copy: 3,
    rename: 9,
    remove: 5,
    make_folder: 4,
    remove_folder: 3,
    look: 6,
    list_a_folder: 6,
    read: 6,
    read_on: 3,
    change_size: 3,
    change_time: 4,
    cut: 1,
    stir: 4,
}


def run(actor: Actor, steps: int) -> None:
    for _ in range(steps):
        (does,) = actor.chance.choices(list(STEPS), list(STEPS.values()))
        does(actor)
        while len(actor.readers) > 5:
            actor.read_on(actor.readers[0])
