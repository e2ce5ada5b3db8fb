"""What identifies a dataset's samples: its fingerprint, or what its parts have."""
