"""I/O other than Redis: the resolver, byte streams and TLS."""
