"""Where archives are kept. A store knows keys and bytes, and nothing of backups."""
