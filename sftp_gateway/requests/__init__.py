"""How the requests of an SFTP channel are carried out: at once or in worker threads, in order."""
