"""Files and directories as sessions see them, over any PyFilesystem: handles, drafts, spool. Knows no SSH."""
