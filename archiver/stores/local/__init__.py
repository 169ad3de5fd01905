"""An archive in a directory."""
