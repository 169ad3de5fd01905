"""Taking dumps and logs that are there already into an archive."""
