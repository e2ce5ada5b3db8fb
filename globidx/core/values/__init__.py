"""What elements of arrays mean: their dtypes, how they are packed, sparse rows of them."""
