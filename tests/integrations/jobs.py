"""Jobs of training frameworks, and what their steps saw."""

from __future__ import annotations

import json
import subprocess
from collections import Counter, defaultdict
from pathlib import Path

from processes import REPOSITORY, clean_environment, torchrun

EXAMPLES = REPOSITORY / "examples" / "integrations"


def run(ranks, script, folder, *arguments):
    """What a script of this folder prints on so many processes; it must succeed."""
    done = subprocess.run(
        torchrun(ranks, Path(__file__).parent / script, folder, *arguments),
        env=clean_environment(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def lines(folder, leg="*", rank="*"):
    """What the steps wrote, of all legs and ranks or of some."""
    paths = sorted(Path(folder).glob(f"seen-{leg}-{rank}.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def times_seen(steps, what="ids"):
    """How often each id was seen, by epoch."""
    seen = defaultdict(Counter)
    for step in steps:
        seen[step["epoch"]].update(map(int, step[what]))
    return dict(seen)
