"""Plugs for training frameworks, one module each; each is imported only by whoever uses it."""
