"""Restores a backup set to a directory, as files that a server loads."""
