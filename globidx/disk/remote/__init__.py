"""Bytes from afar: objects behind a URL, asked for by many requests at once."""
