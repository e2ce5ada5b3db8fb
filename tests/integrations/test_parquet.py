"""The rows of parquet files are read once by the function of the page, from the middle of row groups on."""

import itertools

import pytest
from processes import REPOSITORY
from test_docs import blocks
from torch.utils.data import DataLoader

from globidx.stream import ShardStream

pq = pytest.importorskip("pyarrow.parquet")
pa = pytest.importorskip("pyarrow")

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")
LENGTHS = (23, 1, 40, 8, 17)


def rows_of_the_page():
    """``rows_of``, as the page has it."""
    page = blocks(REPOSITORY / "docs" / "howto" / "streams.md")
    (block,) = [block.text for block in page if "def rows_of" in block.text]
    names = {"ShardStream": ShardStream}
    exec(block, names)
    return names["rows_of"]


@pytest.mark.parametrize("infinite", [False, True])
def test_rows_are_read_once_on_2_ranks_and_then_3(tmp_path, infinite):
    """Row groups of 7 rows, batches of 4, two workers: a save lies in the middle of a group."""
    numbers, paths = itertools.count(), []
    for part, length in enumerate(LENGTHS):
        paths.append(tmp_path / f"part-{part}.parquet")
        table = pa.table({"id": list(itertools.islice(numbers, length))})
        pq.write_table(table, paths[-1], row_group_size=7)
    states, seen = None, []
    for ranks, most in ((2, 3), (3, None)):
        streams = [
            ShardStream(paths, rows_of_the_page(), ranks, rank, infinite=infinite)
            for rank in range(ranks)
        ]
        for stream in streams:
            if states:
                stream.load_state_dict(states)
            loader = DataLoader(stream, 4, num_workers=2)
            # of an infinite stream: until this rank's part of the epoch is read
            for rows, places in itertools.islice(loader, most):
                of_epoch = places[:, 0] == 0
                seen += rows["id"][of_epoch].tolist()
                stream.commit(places)
                if stream.epoch > 0:
                    break
        states = ShardStream.merge_states([stream.state_dict() for stream in streams])
    assert sorted(seen) == list(range(sum(LENGTHS)))
