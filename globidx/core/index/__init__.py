"""The global index: which file and item a sample id means, as columns, and how two indexes differ."""
