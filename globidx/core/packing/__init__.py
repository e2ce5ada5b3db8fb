"""Packing: which documents share a pack of a token budget, as arithmetic over their lengths."""
