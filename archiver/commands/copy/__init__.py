"""Copying an archive into another one."""
