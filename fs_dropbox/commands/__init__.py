"""The commands of `fs-dropbox`, on click. `program.py` runs them; each of the others holds related commands."""
