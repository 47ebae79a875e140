"""`Choices`: what a session that does things at random decides: paths and their spelling, contents, times."""

from __future__ import annotations

import random

from tests.sftp_gateway.sessions.random_model import Model

FILES = ("a.txt", "b.dat", "c", "Dd.Filepart", "\u00e9.txt")
FOLDERS = ("one", "Two", "\u00fcber")
SIZES = (0, 1, 10, 700, 5000, 40_000, 70_000)


class Choices:
    """Choices by a seed, over what a model has. Names in the session's folder `root` begin with `prefix`."""

    def __init__(self, root: str, *, prefix: str, seed: str, folds: bool) -> None:
        """`folds`: names of different case are one."""
        self.root = root
        self.prefix = prefix
        self.chance = random.Random(seed)
        self.folds = folds
        self.model = Model(str.lower if folds else str)

    def path(self, key: str) -> str:
        """Spell a path, in some case where that does not matter."""
        path = self.root.rstrip("/") + key
        if self.folds and self.chance.random() < 0.2:
            path = "".join(self.chance.choice((letter.lower(), letter.upper())) for letter in path)
        return path

    def some_key(self) -> str:
        """Return the path of a file that may be there, in a folder that is mostly there."""
        folders = list(self.model.folders)
        folder = self.chance.choice(folders)
        if self.chance.random() < 0.05:
            folder = folder.rstrip("/") + "/" + self.fold(self.prefix + self.chance.choice(FOLDERS))
        return folder.rstrip("/") + "/" + self.fold(self.prefix + self.chance.choice(FILES))

    def some_folder(self) -> str:
        folder = self.chance.choice(list(self.model.folders))
        if folder.count("/") > 2:
            folder = "/"
        return folder.rstrip("/") + "/" + self.fold(self.prefix + self.chance.choice(FOLDERS))

    def a_file(self) -> str:
        """Return the path of a file that is there, mostly."""
        there = list(self.model.visible())
        return self.chance.choice(there) if there and self.chance.random() < 0.9 else self.some_key()

    def fold(self, path: str) -> str:
        return self.model.fold(path)

    def some_bytes(self) -> bytes:
        return self.chance.randbytes(self.chance.choice(SIZES) + self.chance.randrange(3))

    def some_time(self) -> int:
        return self.chance.randrange(1_000_000_000, 1_600_000_000)
