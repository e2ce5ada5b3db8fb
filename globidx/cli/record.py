"""``globidx record``: how far a run has come."""

from __future__ import annotations

import argparse
import json
from typing import Any

from globidx.cli.output import tell


def add(things: Any) -> None:
    """Add the ``record`` commands to the parser's."""
    record = things.add_parser("record", help="show the record of a run").add_subparsers(required=True)
    show = record.add_parser("show", help="show how far a run has come", description="Show how far a run has come.")
    show.add_argument("path", help="a record file, or a folder of them: the newest")
    show.add_argument("--json", action="store_true", help="print JSON")
    show.set_defaults(run=_show)


def _show(args: argparse.Namespace) -> None:
    from globidx.disk.records import newest, read_record

    found = read_record(newest(args.path))
    lines = [f"record   {found['id']}", f"step     {found['step']}", f"time     {found['time']}"]
    for name, state in found["states"].items():
        lines += ["", *_shown(name, state)]
    tell(args, found, "\n".join(lines))


def _shown(name: str, state: dict[str, Any]) -> list[str]:
    """One object's state as lines; a sampler's with a bar."""
    from globidx.core.state import FORMAT

    if state.get("format") != FORMAT:
        return [f"{name}: {json.dumps(state)[:200]}"]
    total = state["consumed"] + state["remaining"]
    left_out = f", {state['skipped']} left out" if state["skipped"] else ""
    filled = 30 * state["consumed"] // total if total else 0
    order = state["order"]
    return [
        f"{name}: epoch {state['epoch']}  [{'#' * filled:.<30}]  {state['consumed']} of {total}, "
        f"{state['remaining']} remaining{left_out}",
        f"  order      {order['algorithm']} (version {order['version']}), seed {state['seed']}",
        f"  dataset    {state['dataset']['num_samples']} samples, fingerprint {state['dataset']['fingerprint']}",
        *(f"  {_layer(layer)}" for layer in state["segments"]),
        *([f"  skip       {_pairs(state['skip'])} (from the next segment on)"] if state["skip"] else []),
    ]


def _layer(layer: Any) -> str:
    """One layer of an epoch's history."""
    if isinstance(layer, dict):
        return f"left out   {_pairs(layer['skip'])}"
    return f"committed  the first {layer[0]}" if len(layer) == 1 else f"committed  by rank {' '.join(map(str, layer))}"


def _pairs(pairs: list[list[int]]) -> str:
    shown = ", ".join(f"{start}" if stop == start + 1 else f"[{start}, {stop})" for start, stop in pairs[:8])
    return f"ids {shown}" + (f" and {len(pairs) - 8} more ranges" if len(pairs) > 8 else "")
