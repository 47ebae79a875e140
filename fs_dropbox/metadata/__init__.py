"""What is known of an account without its content: cache, catalogue, change feed. Knows the API, no files."""
