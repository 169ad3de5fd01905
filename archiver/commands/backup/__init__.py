"""Having backups made now, and archiving exactly those."""
