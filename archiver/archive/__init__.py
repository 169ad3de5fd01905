"""The archive: which key a backup has, what its record says, which sets are complete."""
