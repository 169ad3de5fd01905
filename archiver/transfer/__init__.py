"""From a signed URL to verified bytes: parts, fetched, metered and written."""
