"""From an app key to stored credentials: the consent page, what is missing, names for connections."""
