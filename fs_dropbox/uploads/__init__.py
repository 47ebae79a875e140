"""How content gets into an account: upload sessions, shared commits, what is staged. Knows no file objects."""
