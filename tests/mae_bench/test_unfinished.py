"""Folders that are whole or not there, whoever is killed on the way."""

import multiprocessing
import os

import pytest

from mae_bench.run.unfinished import atomic_folder


def begin_and_die(place):
    with atomic_folder(place) as folder:
        (folder / "half").write_text("of it")
        os._exit(9)


def killed(place):
    process = multiprocessing.get_context("fork").Process(target=begin_and_die, args=(place,))
    process.start()
    process.join()
    assert process.exitcode == 9


def test_what_a_killed_call_has_left_goes_with_the_next(tmp_path):
    place, other = tmp_path / "a[b]", tmp_path / "a"
    killed(place)
    killed(other)
    assert [each.name.startswith(".a") for each in tmp_path.iterdir()] == [True, True]
    with atomic_folder(place) as folder:
        (folder / "whole").write_text("it")
    assert [each.name for each in place.iterdir()] == ["whole"]
    assert place.stat().st_mode & 0o777 == 0o755
    (left,) = (each for each in tmp_path.iterdir() if each != place)
    assert left.name.startswith(".a.")  # of another place
    with atomic_folder(other):
        pass
    assert sorted(tmp_path.iterdir()) == [other, place]


def test_one_under_way_is_left_alone(tmp_path):
    place = tmp_path / "place"
    with pytest.raises(OSError, match="not empty"), atomic_folder(place) as first:
        (first / "mine").write_text("")
        with atomic_folder(place) as second:
            (second / "yours").write_text("")
        assert (first / "mine").exists()
    assert [each.name for each in place.iterdir()] == ["yours"]
    assert list(tmp_path.iterdir()) == [place]


def test_nothing_is_left_of_an_error(tmp_path):
    with pytest.raises(ValueError, match="x"), atomic_folder(tmp_path / "place") as folder:
        (folder / "half").write_text("of it")
        raise ValueError("x")
    assert not list(tmp_path.iterdir())
