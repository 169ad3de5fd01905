"""``archiver prune``: removes backup sets that a retention policy keeps no longer."""
