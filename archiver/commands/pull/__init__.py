"""Downloading the backups that the archive does not hold yet."""
