"""Files that are there already, in a directory or bucket, become backups."""
