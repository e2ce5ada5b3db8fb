"""Indexes on disk: finding and scanning files, the cache, and the manager that users hold."""
