"""Where archives are stored. A store knows keys and bytes, and nothing about backups."""
