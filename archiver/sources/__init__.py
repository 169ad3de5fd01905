"""Where backups come from: listing them and, when a URL expires, asking again."""
