#!/usr/bin/env python3
"""Build the index of zarr and HDF5 files before a job needs it: the same as ``globidx index build``."""

import sys

from globidx.cli import main

if __name__ == "__main__":
    sys.exit(main(["index", "build", *sys.argv[1:]]))
