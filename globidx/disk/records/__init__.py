"""Folders of records: writing, listing and pruning them, and checking what lies in one."""
