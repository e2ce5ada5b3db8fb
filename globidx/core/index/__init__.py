"""The global index: which file and item a sample id means, and how two indexes differ."""
