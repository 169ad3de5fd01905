"""Replacing what a verify found damaged or missing, from the source or from another archive."""
