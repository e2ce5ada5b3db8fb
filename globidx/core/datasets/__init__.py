"""What identifies a dataset's samples: its own fingerprint, or what follows from the datasets it is made of."""
