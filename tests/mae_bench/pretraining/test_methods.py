"""`pretrain --method`: another method is one file and one line; here, one class and one entry.

The toy's encoder is to tell the mean colour of its image, as an averaged copy of it does.
"""

import copy
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from small_runs import SMALL, flags
from torch import nn

import backbones
from mae_bench import pretrain, transfer
from mae_bench.cli import call
from mae_bench.errors import Interrupted
from mae_bench.execution import Execution
from mae_bench.pretraining.method import Method
from mae_bench.pretraining.methods import METHODS
from mae_bench.pretraining.methods.mae import MINIATURE, PUBLISHED
from mae_bench.pretraining.recipes import PretrainRecipe
from mae_bench.pretraining.task import PretrainingTask
from results import read_records
from tasks.recipe import said_by


@dataclass(frozen=True, kw_only=True)
class ToyRecipe(PretrainRecipe):
    keep: float
    """share of the averaged copy that a step keeps"""


class ToyTask(PretrainingTask):
    method = "toy"

    def __init__(self, recipe, folders, seed):
        super().__init__(recipe, folders, seed)
        self.student = backbones.create(recipe.backbone, image_size=recipe.image_size)
        self.head = nn.Linear(self.student.embed_dim, 3)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.register_buffer("steps", torch.zeros(()))

    @property
    def encoder(self):
        return self.student

    def start_from(self, checkpoint, reading):
        raise NotImplementedError

    def after_step(self, step, num_steps):
        assert step == self.steps + 1
        assert num_steps == 6
        self.steps += 1
        pairs = zip(self.teacher.parameters(), self.student.parameters(), strict=True)
        for mean, new in pairs:
            mean.lerp_(new.detach(), 1 - self.recipe.keep)

    def forward(self, batch):
        images = self.normalise(batch["images"])
        known = self.head(self.student(images).mean(1))
        taught = self.head(self.teacher(images).mean(1))
        colour = images.mean((2, 3))
        return {"loss": (known - colour).square().mean() + (known - taught).square().mean()}


class Toy(Method):
    name = "toy"
    title = "mean colour"
    recipe_type = ToyRecipe

    def rows(self, backbone):
        shared = {f.name for f in PretrainRecipe.__dataclass_fields__.values()}
        rows = PUBLISHED | (MINIATURE if backbone == "vit_mini" else {})
        return {k: v for k, v in rows.items() if k in shared} | said_by("a toy", keep=0.5)

    def build(self, recipe, data, seed):
        return ToyTask(recipe, data, seed)


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setitem(METHODS, "toy", Toy())


@pytest.mark.usefixtures("toy")
def test_a_toy_trains_resumes_and_transfers(world: Path, tmp_path: Path, capsys) -> None:
    small = flags(data=world / "unlabelled", **SMALL)
    argv = ["pretrain", "--method", "toy", *small, "--keep", "0.25", "--out", str(tmp_path)]
    assert call(argv) == 0
    said = capsys.readouterr().out
    folder = tmp_path / "pretrain-toy-vit_mini-seed0"
    (record,), _ = read_records(tmp_path)
    assert record.protocol == "pretrain/toy@1"
    assert record.recipe["keep"] == 0.25
    assert "keep" in {each.field for each in record.changed}
    assert "reconstructions" not in said
    assert {f.name for f in folder.glob("*.safetensors")} == {"backbone.safetensors"}
    with safe_open(folder / "backbone.safetensors", "pt") as file:
        assert file.metadata()["method"] == "toy"
    record = transfer(
        checkpoint=folder, data=world / "imagenet1k", out=tmp_path, protocol="knn", neighbours=(2,),
        headline_neighbours=2
    )  # fmt: skip
    assert record.init == "toy"


@pytest.mark.usefixtures("toy")
def test_what_follows_a_step_is_resumed_to_the_bit(world: Path, tmp_path: Path, monkeypatch):
    how = {"method": "toy", "data": world / "unlabelled", "out": tmp_path, **SMALL}
    pretrain(name="whole", **how)
    real = ToyTask.after_step

    def interrupt(self, step, num_steps):
        real(self, step, num_steps)
        if step == 4:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(ToyTask, "after_step", interrupt)
    with pytest.raises(Interrupted):
        pretrain(name="halves", execution=Execution(workers=0), **how)
    monkeypatch.setattr(ToyTask, "after_step", real)
    pretrain(name="halves", **how)
    one, other = (load_file(tmp_path / n / "backbone.safetensors") for n in ("whole", "halves"))
    assert all(one[k].equal(v) for k, v in other.items())


@pytest.mark.usefixtures("toy")
def test_help_shows_the_methods_own_recipe(capsys) -> None:
    with pytest.raises(SystemExit):
        call(["pretrain", "--method", "toy", "--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--keep" in said
    assert "toy: mean colour" in said
    assert "--mask-ratio" not in said


def test_unknown_methods_and_others_flags_are_refused(capsys) -> None:
    assert call(["pretrain", "--method", "mea"]) == 2
    assert "unknown method 'mea'; did you mean mae?" in capsys.readouterr().err
    assert call(["pretrain", "--keep", "0.5"]) == 2
    assert "pretrain does not take --keep" in capsys.readouterr().err
