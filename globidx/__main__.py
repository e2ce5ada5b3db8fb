"""``python -m globidx`` is the ``globidx`` command."""

import sys

from globidx.cli import main

sys.exit(main())
