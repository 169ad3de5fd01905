"""Writing a backup set out of the archive as files that a server loads."""
