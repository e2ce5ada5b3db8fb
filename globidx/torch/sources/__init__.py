"""Samples that no index knows: any objects with a length and items, as one dataset."""
