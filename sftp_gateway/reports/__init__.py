"""What a gateway tells of itself: metrics, status page, hooks, control socket. Nobody who reports waits."""
