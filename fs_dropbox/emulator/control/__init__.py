"""What a test may do behind the clients' backs."""
