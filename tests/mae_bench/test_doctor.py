"""Each mismatch is named with its fix."""

import importlib.metadata
import sys
import tomllib
from collections import namedtuple
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from mae_bench import doctor
from mae_bench.cli import call

Usage = namedtuple("Usage", "total used free")


def test_this_environment_is_fine(tmp_path: Path, capsys):
    assert call(["doctor", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "fits torch" in said
    assert "PROBLEM" not in said


def test_a_torch_that_torchvision_was_not_built_for(monkeypatch):
    """What the CPU-only wheel of torch does to the ordinary torchvision."""
    import torchvision.ops

    def missing(*_: object) -> None:
        raise RuntimeError("operator torchvision::nms does not exist\nmore")

    monkeypatch.setattr(torchvision.ops, "nms", missing)
    found = doctor.torchvision_operators()
    assert found.status == "problem"
    assert "operator torchvision::nms does not exist" in found.what
    assert "more" not in found.what
    assert "pip install --force-reinstall" in found.fix


def test_torch_that_does_not_import(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    for found in (doctor.torchvision_operators(), doctor.gpu()):
        assert found.status == "problem"
        assert found.fix


@pytest.mark.parametrize(
    ("line", "status", "fix"),
    [
        ("numpy>=1.0", "ok", ""),
        ("numpy>=999", "problem", "pip install 'numpy>=999'"),
        ("no-such-package>=1", "problem", "pip install 'mae-bench'"),
        ('no-such-package>=1; extra == "bench"', "note", "pip install 'mae-bench[bench]'"),
        ('numpy>=999; extra == "dev"', "note", "pip install 'numpy>=999'"),
    ],
)
def test_packages(line, status, fix):
    found = doctor.package(line)
    assert (found.status, found.fix) == (status, fix)
    assert found.what.startswith(line.partition(">")[0])


def test_a_pair_for_cpu_alone_is_accepted(monkeypatch):
    """Its local version is no other version; what counts is whether the two work together."""
    told = {"torch": "2.14.1+cpu", "torchvision": "0.29.1+cpu"}
    monkeypatch.setattr(importlib.metadata, "version", told.__getitem__)
    for line in ("torch>=2.11,<2.16", "torchvision>=0.26"):
        assert doctor.package(line).status == "ok"


def test_what_is_for_other_systems_is_no_problem():
    found = doctor.package("no-such-package>=1; sys_platform == 'none'")
    assert (found.status, found.fix) == ("ok", "")


def test_the_size_of_the_installation(monkeypatch):
    """The sum over what is required, told apart by whether a GPU alone uses it."""
    sizes = {"mae-bench": 2**20, "torch": 2**30, "nvidia-cublas": 3 * 2**30}
    monkeypatch.setattr(doctor, "required", lambda name: set(sizes))
    monkeypatch.setattr(doctor, "bytes_of", sizes.__getitem__)
    monkeypatch.setattr(doctor, "has_gpu", lambda: False)
    found = doctor.installation()
    assert (found.status, found.what) == (
        "note",
        "installed: mae-bench with what it needs, 4.0 GiB, of it 3.0 GiB for GPUs",
    )
    assert "CPU-only" in found.fix
    del sizes["nvidia-cublas"]
    assert doctor.installation().what.endswith("1.0 GiB, without libraries for GPUs")


def test_what_is_required_is_found_through_others():
    found = doctor.required("mae-bench")
    assert {"mae-bench", "torch", "filelock", "jinja2", "markupsafe"} <= found
    assert "pytest" not in found
    assert doctor.bytes_of("torch") > 2**28


def test_every_requirement_is_looked_at():
    looked_at = {finding.what.split()[0] for finding in doctor.doctor()}
    for line in importlib.metadata.requires("mae-bench") or []:
        assert Requirement(line).name in looked_at


def test_little_disk_is_a_problem(monkeypatch, tmp_path: Path, capsys):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: Usage(10, 9, 2**30))
    found = doctor.disk(tmp_path / "not" / "there" / "yet")
    assert found.status == "problem"
    assert "1.0 GiB free" in found.what
    with pytest.raises(SystemExit) as end:
        call(["doctor", "--out", str(tmp_path)])
    assert end.value.code == 1
    assert "1 problem" in capsys.readouterr().out


def test_a_file_in_the_way_is_a_problem(tmp_path: Path):
    (tmp_path / "file").write_text("")
    assert doctor.disk(tmp_path / "file").status == "problem"


def test_a_checkout_that_is_not_installed(monkeypatch):
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", missing)
    (found,) = doctor.packages()
    assert (found.status, found.what) == ("problem", "mae-bench is not installed")
    assert "pip install" in found.fix


def test_a_torch_whose_libraries_are_missing(monkeypatch):
    """The dynamic linker's complaint is an OSError, sometimes of several lines."""

    class Broken:
        def find_spec(self, name, *_):
            if name == "torch":
                raise OSError("libcudart.so.13: cannot open shared object file\nmore")

    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    assert doctor.torchvision_operators().what == (
        "torch does not import: libcudart.so.13: cannot open shared object file"
    )
    assert doctor.gpu().status == "problem"


def test_every_extra_is_said_to_be_for_something():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert set(project["project"]["optional-dependencies"]) == set(
        sys.modules["mae_bench.doctor"].EXTRAS
    )
