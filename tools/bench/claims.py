"""What the library promises of its sampler, and what one run of ``sampler.py`` says of it."""

from collections.abc import Iterator

from measure import power

OURS = "globidx"
PAGE = 4096  # less memory than that cannot be told from none


def times(above: dict, below: dict, figure: str) -> float:
    """How many times ``below``'s figure fits into ``above``'s."""
    least = PAGE if figure == "extra_bytes" else 1e-9
    return max(above[figure], least) / max(below[figure], least)


def claims(rows: list[dict]) -> Iterator[tuple[str, str]]:
    """Each promise and its verdict; nothing is said of what was not measured in this run."""
    at = {(row["contestant"], row["n"]): row for row in rows}

    def ratio(above: tuple[str, int], below: tuple[str, int], figure: str) -> float | None:
        return times(at[above], at[below], figure) if above in at and below in at else None

    tiny, huge = (OURS, 10**3), (OURS, 10**12)
    yield "first id at 10^12 <= 2x that at 10^3", at_most(2, ratio(huge, tiny, "first_id_s"))
    yield (
        "first id after a resume at 10^12 <= 2x that at 10^3",
        at_most(2, ratio(huge, tiny, "resume_s")),
    )

    ours = [row for row in rows if row["contestant"] == OURS]
    sizes = ", ".join(power(row["n"]) for row in ours)
    most = max((row["extra_bytes"] / 2**20 for row in ours), default=None)
    yield f"memory within 32 MiB of the import at n = {sizes}", at_most(32, most)

    mine, torch = (OURS, 10**7), ("torch", 10**7)
    faster = ratio(torch, mine, "share_s")
    yield "a rank of 8 reads its whole share of 10^7 >= 5x faster than torch", at_least(5, faster)
    yield "and with >= 50x less extra memory", at_least(50, ratio(torch, mine, "extra_bytes"))

    ratios = [
        ratio((OURS, n), (name, n), "ids_per_s") for name, n in at if name == "grain" and n >= 10**6
    ]
    worst = min((value for value in ratios if value is not None), default=None)
    yield (
        ">= 100x the ids/s of grain's IndexSampler, at the worst n from 10^6 on",
        at_least(100, worst),
    )

    resume = ratio(("torchdata", 10**8), (OURS, 10**8), "resume_s")
    yield "resume at 50 % of 10^8 >= 1000x faster than torchdata", at_least(1000, resume)


def at_most(bound: float, value: float | None) -> str:
    """The verdict on a promise that something stays small; None is a value that was not measured."""
    return _verdict(value, value is not None and value <= bound)


def at_least(bound: float, value: float | None) -> str:
    """The verdict on a promise that something is large."""
    return _verdict(value, value is not None and value >= bound)


def _verdict(value: float | None, kept: bool) -> str:
    """PASS or FALLS SHORT, and by what figure."""
    if value is None:
        return "not measured in this run"
    return f"{'PASS' if kept else 'FALLS SHORT'} ({value:.3g})"
