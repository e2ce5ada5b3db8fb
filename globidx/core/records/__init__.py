"""Records: the states of all ranks as one value, its format, and which records are kept."""
