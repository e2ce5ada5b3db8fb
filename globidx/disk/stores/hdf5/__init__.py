"""HDF5 files: by h5py, and by a reader that takes stored chunks from where they lie."""
