"""Calls to Dropbox: a method for each route, with tokens, connections, retries, the account's governor. No cache."""
