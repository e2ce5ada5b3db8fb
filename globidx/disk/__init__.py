"""The disk layer: stores, index caches and record files. No torch here."""
