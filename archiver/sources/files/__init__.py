"""Dumps and logs that lie in a directory or bucket, whoever made them, as a source of backups."""
