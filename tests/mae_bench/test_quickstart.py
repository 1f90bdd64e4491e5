"""The second process of quickstart: what goes wrong in it is said."""

import pytest

from mae_bench.errors import RunError
from mae_bench.quickstart import FROM_SCRATCH, FROM_WEIGHTS, SAID, from_scratch_meanwhile


def test_both_processes_run_the_same_tasks():
    tasks = [{(task, name) for name, task, _ in runs} for runs in (FROM_WEIGHTS, FROM_SCRATCH)]
    assert {task for task, _ in tasks[0]} == {task for task, _ in tasks[1]}
    names = [name for name, _, _ in (*FROM_WEIGHTS, *FROM_SCRATCH)]
    assert len(set(names)) == len(names)


def test_a_failure_in_the_second_process_is_one_line(tmp_path, monkeypatch):
    """Here the cache folder, where the world would be drawn, is a file."""
    cache = tmp_path / "cache"
    cache.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    with from_scratch_meanwhile(tmp_path / "out", seed=0) as finish:
        with pytest.raises(
            RunError, match=rf"failed: .*{cache}.*the same command goes on"
        ) as error:
            finish()
    assert "\n" not in str(error.value)
    assert "Traceback" not in (tmp_path / "out" / SAID).read_text()
