"""Where backups are downloaded: in this process, or in those of a cluster."""
