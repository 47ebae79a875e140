"""Who is served: connections let in, sessions, users, their accounts, several processes."""
