"""One look at the files makes one table, and writes it once."""

import pytest
from files import numbers, write_hdf5

from globidx.disk.index import cache as index_cache
from globidx.disk.index import scan
from globidx.disk.index.spec import IndexSpec


@pytest.fixture
def calls(monkeypatch):
    """How often tables were assembled and caches written."""
    counts = {"assemble": 0, "write_atomic": 0}
    for module, name in ((scan, "assemble"), (index_cache, "write_atomic")):
        original = getattr(module, name)

        def counting(*args, original=original, name=name, **options):
            counts[name] += 1
            return original(*args, **options)

        monkeypatch.setattr(module, name, counting)
    return counts


def test_an_index_is_assembled_and_written_once(tmp_path, calls):
    """Without a cache, with one, and with a part of a job array: there was a second table, and a second write."""
    for number in range(5):
        write_hdf5(tmp_path / f"{number}.h5", numbers(number))
    spec = IndexSpec.of(tmp_path, key="x")
    spec.build().run_part(1, 2)
    assert calls == {"assemble": 1, "write_atomic": 1}
    first = spec.build().run()
    assert calls == {"assemble": 2, "write_atomic": 2}
    assert first.digest is not None
    again = spec.build().run()
    assert calls["assemble"] == 3
    assert again.fingerprint == first.fingerprint
