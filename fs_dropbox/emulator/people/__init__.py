"""What goes beyond one person's files: consent, teams, mounts, shared folders and links, locks. Knows no HTTP."""
