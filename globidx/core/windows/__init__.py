"""Windows over sequences: samples that are several rows, as arithmetic."""
