"""Makes one folder hold what another holds, between any two filesystems."""
