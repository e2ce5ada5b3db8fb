"""Packs of documents as samples of torch's loaders."""
