"""Downloads: from a signed URL to verified bytes in a store's staging area."""
