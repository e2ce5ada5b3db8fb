"""zarr stores: by zarr-python, and by a reader of plain arrays that needs no library."""
