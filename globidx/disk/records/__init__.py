"""Folders of records: writing, listing and pruning them, and verifying them."""
