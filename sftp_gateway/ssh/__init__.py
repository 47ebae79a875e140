"""SSH on paramiko: the only modules that touch its private parts. Knows no files and no users."""
