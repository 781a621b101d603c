"""Batches are read where everything agrees, and computed where anything differs."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from levelhead import journal
from levelhead.batching import map_batches
from levelhead.errors import ModelError, RunFolderError
from levelhead.journal import recording, watch
from levelhead.journal.status import kept_batches

FINGERPRINT = {"model": "m", "seed": 0}


class KilledError(Exception):
    """The stage was left in the middle."""


class Work:
    """Squares numbers, and remembers which."""

    def __init__(self, until: int = 10**9, limit: int = 10**9) -> None:
        self.seen: list[list[int]] = []
        self.until, self.limit = until, limit

    def __call__(self, batch: list[int]) -> list[Any]:
        if len(batch) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if sum(map(len, self.seen)) >= self.until:
            raise KilledError
        self.seen.append(batch)
        return [(n * n, np.full(2, n / 3)) for n in batch]


def squares(work: Work, count: int = 20, size: int = 4, of: Any = None) -> list[Any]:
    def named(batch: list[int]) -> list[Any]:
        return work(batch)

    return map_batches(list(range(count)), named, batch_size=size, length=lambda n: n, of=of)


def run(folder: Path, *works: Work, fingerprint: Any = FINGERPRINT, **options: Any) -> Any:
    with journal.stage(folder, "score", fingerprint):
        return [squares(work, **options) for work in works]


def as_bytes(results: Any) -> list[Any]:
    return [(n, array.tobytes()) for call in results for n, array in call]


@pytest.mark.parametrize("killed_after", [0, 4, 8, 16])
def test_a_killed_stage_goes_on_and_gives_the_same(tmp_path: Path, killed_after: int) -> None:
    whole = run(tmp_path / "a", Work(), Work())
    first = Work(until=killed_after)
    with pytest.raises(KilledError):
        run(tmp_path / "b", Work(), first)
    again = Work()
    done = run(tmp_path / "b", (untouched := Work()), again)
    assert as_bytes(done) == as_bytes(whole)
    assert untouched.seen == []
    assert first.seen + again.seen == [list(range(n, n - 4, -1)) for n in range(19, 0, -4)]
    assert not list((tmp_path / "b/work").glob("*.sqlite*"))


@pytest.mark.parametrize(
    ("other", "options"),
    [({"seed": 1}, {}), ({}, {"of": "other"}), ({}, {"count": 21})],
    ids=["fingerprint", "of", "items"],
)
def test_anything_that_differs_is_computed_anew(
    tmp_path: Path, other: dict[str, Any], options: dict[str, Any]
) -> None:
    with pytest.raises(KilledError):
        run(tmp_path, Work(), Work(until=8))
    again = Work()
    run(tmp_path, again, Work(), fingerprint=FINGERPRINT | other, **options)
    assert sum(map(len, again.seen)) >= 20


def test_the_control_without_the_digest_check_reads_what_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the tests above would notice if nothing were checked."""
    with pytest.raises(KilledError):
        run(tmp_path, Work(), Work(until=8))
    monkeypatch.setattr(recording, "CHECKS_DIGESTS", False)
    again = Work()
    run(tmp_path, again, Work(), of="other")
    assert again.seen == []


def test_what_follows_other_results_is_computed_anew(tmp_path: Path) -> None:
    """The chain: the second call's inputs are the same, but not what came before it."""

    class Other(Work):
        def __call__(self, batch: list[int]) -> list[Any]:
            return [(n, array + 1) for n, array in super().__call__(batch)]

    with pytest.raises(KilledError):
        run(tmp_path, Work(), Work(), Work(until=8))
    path = tmp_path / "work/score.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM batch WHERE call=0 AND start=4")
    database.close()
    again = Work()
    run(tmp_path, Other(), again, Work())
    assert sum(map(len, again.seen)) == 20


def test_a_halved_batch_is_part_of_the_plan(tmp_path: Path) -> None:
    tight = Work(limit=3)
    whole = run(tmp_path / "a", tight)
    assert {len(batch) for batch in tight.seen} == {2}
    with pytest.raises(KilledError):
        run(tmp_path / "b", Work(limit=3, until=6))
    again = Work()  # there is room now, but batches stay as they were
    done = run(tmp_path / "b", again)
    assert as_bytes(done) == as_bytes(whole)
    assert {len(batch) for batch in again.seen} == {2}


@pytest.mark.parametrize("error", [
    MemoryError(), torch.OutOfMemoryError("x"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
])  # fmt: skip
def test_whatever_says_that_memory_is_full_halves_the_batch(error: Exception) -> None:
    sizes = []

    def work(batch: list[int]) -> list[int]:
        sizes.append(len(batch))
        if len(batch) > 2:
            raise error
        return batch

    items = list(range(8))
    assert map_batches(items, work, batch_size=8, length=lambda n: n) == items
    assert sizes == [8, 4, 2, 2, 2, 2]
    with pytest.raises(ModelError, match="one text does not fit"):
        map_batches(items, lambda batch: raises(error), batch_size=4, length=lambda n: n)


def raises(error: Exception) -> Any:
    raise error


def test_another_runtime_error_is_not_taken_for_a_full_memory() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        map_batches(
            [1, 2], lambda batch: raises(RuntimeError("shapes")), batch_size=2, length=lambda n: n
        )


@pytest.mark.parametrize("column", ["payload", "digest", "count", "sha256", "size"])
def test_a_damaged_row_is_computed_again(tmp_path: Path, column: str) -> None:
    whole = run(tmp_path / "a", Work())
    with pytest.raises(KilledError):
        run(tmp_path / "b", Work(until=16))
    value = {"payload": b"\x00" * 9, "count": 3, "size": 1}.get(column, "0" * 64)
    with sqlite3.connect(tmp_path / "b/work/score.sqlite") as database:
        database.execute(f"UPDATE batch SET {column}=? WHERE start=4", (value,))  # noqa: S608
    database.close()
    again = Work()
    assert as_bytes(run(tmp_path / "b", again)) == as_bytes(whole)
    if column not in ("count", "size"):
        assert again.seen == [[15, 14, 13, 12], [3, 2, 1, 0]]


def test_a_file_that_is_no_database_is_set_aside(tmp_path: Path, caplog: Any) -> None:
    with pytest.raises(KilledError):
        run(tmp_path, Work(until=8))
    path = tmp_path / "work/score.sqlite"
    path.write_bytes(b"not a database" * 100)
    again = Work()
    run(tmp_path, again)
    assert sum(map(len, again.seen)) == 20
    assert (tmp_path / "work/score.sqlite.damaged").exists()
    assert "starts over" in caplog.text


def test_scopes_are_found_wherever_they_are_asked_for(tmp_path: Path) -> None:
    def both(names: str, work: Callable[[str], Work]) -> None:
        with journal.stage(tmp_path, "compare", FINGERPRINT):
            for name in names:
                with journal.scope("unit", name):
                    squares(work(name))
            raise KilledError

    with pytest.raises(KilledError):
        both("ab", lambda name: Work())
    again = {name: Work() for name in "abc"}
    with pytest.raises(KilledError):
        both("cb", again.__getitem__)
    assert again["b"].seen == []
    assert sum(map(len, again["c"].seen)) == 20


def test_steps_and_clocks_are_decided_once(tmp_path: Path) -> None:
    def decide() -> tuple[str, float]:
        with journal.stage(tmp_path, "score", FINGERPRINT):
            found = journal.step("more?", lambda: str(np.random.default_rng().random()))
            now = journal.now()
            squares(work)
            raise KilledError(found, now)

    work = Work()
    with pytest.raises(KilledError) as first:
        decide()
    work = Work()
    with pytest.raises(KilledError) as second:
        decide()
    assert first.value.args == second.value.args
    assert work.seen == []


def test_work_that_returns_nothing_is_never_skipped(tmp_path: Path) -> None:
    total = []

    def adds(batch: list[int]) -> list[None]:
        total.extend(batch)
        return [None] * len(batch)

    def stage() -> None:
        with journal.stage(tmp_path, "score", FINGERPRINT):
            map_batches([1, 2, 3], adds, batch_size=2, length=lambda n: n)
            raise KilledError

    for _ in range(2):
        with pytest.raises(KilledError):
            stage()
    assert sorted(total) == [1, 1, 2, 2, 3, 3]


def test_without_a_stage_nothing_is_kept(tmp_path: Path) -> None:
    assert len(squares(Work())) == 20
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_hold_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work/score.sqlite").mkdir()
    with pytest.raises(RunFolderError, match="work"), journal.stage(tmp_path, "score", {}):
        pass


def test_status_counts_units_done_and_reused(tmp_path: Path) -> None:
    with pytest.raises(KilledError), watch.watching(_work(tmp_path), "score"):
        run(tmp_path, Work(until=8))
    told = watch.read_json(tmp_path / "work/status.json")
    assert told["state"] == "failed"
    assert told["last_error"]["type"] == "KilledError"
    assert told["stages"]["score"] == {"state": "running", "done": 2, "reused": 0, "left": 3}
    assert kept_batches(tmp_path / "work/score.sqlite") == 2
    with watch.watching(_work(tmp_path), "score"):
        run(tmp_path, Work())
    told = watch.read_json(tmp_path / "work/status.json")
    assert told["stages"]["score"] == {"state": "done", "done": 5, "reused": 2, "left": 0}
    assert told["state"] == "done"
    assert told["last_error"] is None


def _work(folder: Path) -> Path:
    (folder / "work").mkdir(exist_ok=True)
    return folder / "work"
