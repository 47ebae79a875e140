"""The parts that `DropboxFS` is put together from: opening, walking, changing, telling of itself."""
