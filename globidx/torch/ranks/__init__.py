"""Agreement between ranks: collectives with a timeout, and what happens when a rank is missing."""
