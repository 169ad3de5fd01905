"""Having backups made now, and bringing home exactly those."""
