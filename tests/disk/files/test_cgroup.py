"""What a process may still have, by groups as the kernel shows them, in either version."""

from __future__ import annotations

import pytest

from globidx.disk.files import cgroup
from globidx.disk.files.cgroup import free_memory

V2 = "0::/job.slice/step\n"
V1 = "12:pids:/elsewhere\n5:cpu,memory:/job.slice/step\n0::/elsewhere\n"
NAMES = {
    V2: ("memory.max", "memory.current", "inactive_file", "active_file"),
    V1: (
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
        "total_active_file",
    ),
}


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with a megabyte, and no groups yet."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9999 kB\nMemAvailable:    1024 kB\n")
    monkeypatch.setattr(cgroup, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(cgroup, "_MOUNTED", tmp_path / "cgroup")
    return tmp_path


def group(machine, version, path, most, used, inactive=0, active=0):
    """A group at a path, of which the process is, by /proc, in /job.slice/step."""
    (machine / "proc/self/cgroup").write_text(version)
    folder = machine / "cgroup" / ("memory" if version == V1 else "") / path
    folder.mkdir(parents=True, exist_ok=True)
    names = NAMES[version]
    for name, value in zip(names, (most, used), strict=False):
        (folder / name).write_text(f"{value}\n")
    stat = {"anon": 1, "shmem": 7, names[2]: inactive, names[3]: active}
    (folder / "memory.stat").write_text("".join(f"{name} {size}\n" for name, size in stat.items()))


def test_without_groups_it_is_that_of_the_machine(machine):
    """Also where there is no /proc/self/cgroup."""
    assert free_memory() == 2**20


@pytest.mark.parametrize("version", [V2, V1], ids=["v2", "v1"])
@pytest.mark.parametrize("path", ["job.slice/step", "job.slice", ""], ids=["own", "above", "top"])
def test_a_bound_counts_wherever_it_is_set(machine, version, path):
    """For a group, for one above it, and for that which a container shows at the top."""
    group(machine, version, path, 10000, 3000)
    assert free_memory() == 7000


@pytest.mark.parametrize("version", [V2, V1], ids=["v2", "v1"])
def test_what_the_page_cache_holds_is_free(machine, version):
    """It goes when there is need; shared memory does not. Never less than nothing."""
    group(machine, version, "job.slice/step", 10000, 9900, inactive=5000, active=2000)
    assert free_memory() == 7100
    group(machine, version, "job.slice/step", 10000, 12000)
    assert free_memory() == 0


def test_the_closest_bound_counts_and_max_is_none(machine):
    """Of several."""
    group(machine, V2, "job.slice", 50000, 1000)
    group(machine, V2, "job.slice/step", "max", 1000)
    assert free_memory() == 49000
    group(machine, V2, "job.slice/step", 9000, 1000)
    assert free_memory() == 8000
