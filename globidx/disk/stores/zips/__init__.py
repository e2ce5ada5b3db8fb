"""zarr stores in zip files, read in place: on a disk, and by URL."""
