"""What is not collected: plugs of frameworks that are not installed, whose examples could not run."""

from importlib.util import find_spec
from pathlib import Path

_PLUGS = Path(__file__).parent / "globidx" / "integrations"
collect_ignore = [
    str(path)
    for path in _PLUGS.glob("*.py")
    if path.stem != "__init__" and find_spec(path.stem) is None
]
