"""The commands of `sftp-gateway` but for `serve`."""
