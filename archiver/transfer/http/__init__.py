"""HTTP/1.1 over kept connections: GETs, their responses, and the pool."""
