"""What doctor says of a server's settings."""

from __future__ import annotations

import dataclasses

import pytest

from lookalike.store.server_settings import Library, advice

MIB, GIB = 1 << 20, 1 << 30

UNTOUCHED = {
    "shared_buffers": str(128 * MIB),
    "effective_cache_size": str(4 * GIB),
    "maintenance_work_mem": str(64 * MIB),
    "max_wal_size": str(GIB),
    "max_worker_processes": "8",
    "max_parallel_workers": "8",
    "random_page_cost": "4",
    "jit": "on",
    "jit_above_cost": "100000",
    "autovacuum": "on",
    "huge_pages_status": "on",
    "shared_memory_size_in_huge_pages": "3116",
}
"""PostgreSQL's own settings."""

SMALL = Library(indexes=9 * MIB, vectors=9 * MIB, graph=20 * MIB, rows=3_000, cost=300.0, uses_index=True)
LARGE = Library(indexes=3 * GIB, vectors=3 * GIB, graph=3 * GIB, rows=1_000_000, cost=120_000.0, uses_index=False)


def test_a_small_library_needs_nothing() -> None:
    assert list(advice(UNTOUCHED, SMALL, "pictures")) == []


def test_a_large_library_on_an_untouched_server() -> None:
    advised = {one.setting: one for one in advice(UNTOUCHED, LARGE, '"my pictures"')}
    assert set(advised) == {
        *("shared_buffers", "effective_cache_size", "maintenance_work_mem", "max_wal_size", "random_page_cost", "jit")
    }
    assert advised["shared_buffers"].statement == "alter system set shared_buffers = '3840MB';"
    assert advised["shared_buffers"].restart
    assert advised["jit"].statement == 'alter database "my pictures" set jit = off;'


def test_huge_pages_are_asked_for_where_they_matter_and_can_be_had() -> None:
    lacking = UNTOUCHED | {"huge_pages_status": "off"}
    advised = {one.setting: one for one in advice(lacking, LARGE, "pictures")}
    assert advised["huge_pages"].statement == "sysctl vm.nr_hugepages=3116"
    assert advised["huge_pages"].run_by == "administrator"
    assert list(advice(lacking, SMALL, "pictures")) == []
    before_17 = {name: value for name, value in UNTOUCHED.items() if "huge" not in name}
    another_system = lacking | {"shared_memory_size_in_huge_pages": "-1"}
    for settings in (before_17, another_system):
        assert "huge_pages" not in {one.setting for one in advice(settings, LARGE, "pictures")}


def test_whoever_follows_the_advice_is_left_alone() -> None:
    settings = dict(UNTOUCHED)
    for one in advice(UNTOUCHED, LARGE, "pictures"):
        name, value = one.statement.removesuffix(";").split(" set ")[1].split(" = ")
        settings[name] = value if not value.endswith("MB'") else str(int(value[1:-3]) * MIB)
    well = dataclasses.replace(LARGE, uses_index=True)
    assert list(advice(settings, well, "pictures")) == []


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        ({"max_worker_processes": "1"}, "max_parallel_workers"),
        ({"max_parallel_workers": "0"}, "max_parallel_workers"),
        ({"autovacuum": "off"}, "autovacuum"),
    ],
)
def test_what_hurts_at_any_size(change: dict[str, str], setting: str) -> None:
    library = dataclasses.replace(SMALL, rows=10_000)
    assert [one.setting for one in advice(UNTOUCHED | change, library, "pictures")] == [setting]
