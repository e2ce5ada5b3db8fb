"""The arithmetic of mixtures: whose turn it is at a position, and how often it was theirs before."""
