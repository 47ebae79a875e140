"""SSH on top of paramiko: the only modules that touch its private parts. Knows nothing of files or users."""
