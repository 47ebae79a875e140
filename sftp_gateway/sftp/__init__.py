"""SFTP version 3 as values: packets, attributes, statuses, events. Pure: no I/O, no threads."""
