"""HTTP/1.1 downloads over kept connections, read by worker threads."""
