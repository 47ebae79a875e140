"""All between a socket and a route function: HTTP, who calls, arguments and answers. Knows no rule about files."""
