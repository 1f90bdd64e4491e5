"""Runs that train a tokenizer, and runs that predict its tokens."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from small_runs import SMALL, SMALL_MAE, flags

import backbones
from backbones.checkpoint import save
from mae_bench import pretrain, transfer
from mae_bench.cli import call
from mae_bench.errors import Interrupted, RunError
from mae_bench.execution import Execution
from mae_bench.pretrain import apart
from mae_bench.pretraining.beit_task import BeitPretraining
from mae_bench.pretraining.masked import MaskedPretraining
from mae_bench.pretraining.task import PretrainingTask
from mae_bench.pretraining.token_views import BeitViews, TokenViews
from mae_bench.pretraining.tokenizer import read_tokenizer
from mae_bench.pretraining.tokenizer_task import TokenizerPretraining
from mae_bench.recipes import override, recipe
from tasks.images import UnlabelledImages

CODES = 16
TINY = {**SMALL, "codebook": CODES, "width": 4, "narrow": 8, "base_lr": 0.1}
ALONE = Execution(workers=0)
METHODS = {
    "tokenizer": (TokenizerPretraining, TINY),
    "beit": (BeitPretraining, {**SMALL, "codebook": CODES, "drop_path": 0.2}),
    "mae": (MaskedPretraining, {**SMALL_MAE, "codebook": CODES, "target": "tokens"}),
}


@pytest.fixture(scope="module")
def made(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of runs with a small tokenizer in it."""
    out = tmp_path_factory.mktemp("runs")
    record = pretrain(
        data=world / "unlabelled", out=out, name="tok", method="tokenizer", execution=ALONE, **TINY
    )
    assert 2 <= record.metrics["codes_used"] <= CODES
    assert 1 < record.metrics["perplexity"] <= record.metrics["codes_used"]
    return out


def test_a_tokenizer_is_kept_with_what_it_says(made: Path, world: Path) -> None:
    folder = made / "tok"
    assert not (folder / "backbone.safetensors").exists()
    assert (folder / "reconstructions.png").stat().st_size > 1000
    tokenizer = read_tokenizer(folder / "tokenizer.safetensors")
    assert tokenizer.metadata["method"] == "tokenizer"
    with safe_open(folder / "tokenizer.safetensors", "pt") as file:
        assert any(key.startswith("decoder.") for key in file.keys())  # noqa: SIM118
    images = UnlabelledImages([world / "unlabelled"], 32, 0.5)
    batch = images.__getitems__([(0, i) for i in range(8)])["images"]
    tokens = tokenizer.encoder.tokens(batch)
    assert tokens.shape == (8, 16)
    assert int(tokens.max()) < CODES


@pytest.mark.parametrize("method", ["beit", "mae"])
def test_tokens_are_predicted_and_the_record_says_whose(
    method, made: Path, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also that the newest tokenizer of --out is taken on the miniature world, and said."""
    kind, small = METHODS[method]
    data = world / "unlabelled"
    how = Execution(workers=0, checkpoint_activations=method == "beit")
    record = pretrain(data=data, out=made, name=method, method=method, execution=how, **small)
    said = capsys.readouterr().out
    assert "tok/tokenizer.safetensors (the newest finished one for vit_mini" in said
    assert "FLOPs are not counted" not in said
    tokenizer = record.tokenizer
    assert tokenizer is not None
    assert tokenizer.is_traced
    assert tokenizer.file == "tokenizer.safetensors"
    again = pretrain(
        data=data, out=tmp_path, name="named", method=method, tokenizer=made / "tok",
        execution=ALONE, **small,
    )  # fmt: skip
    assert again.tokenizer == tokenizer
    file = made / method / "backbone.safetensors"
    with safe_open(file, "pt") as opened:
        assert tokenizer.sha256 in opened.metadata()["pretraining"]
    vit, report = backbones.load("vit_mini", file, 32)
    assert report.method == method
    assert vit.anatomy.relative_position == (method == "beit")
    scored = transfer(
        checkpoint=made / method, data=world / "imagenet1k", out=tmp_path, protocol="knn",
        neighbours=(2,), headline_neighbours=2,
    )  # fmt: skip
    assert scored.init == method
    assert scored.checkpoint is not None
    assert scored.checkpoint.tokenizer == tokenizer
    assert issubclass(kind, PretrainingTask)


@pytest.mark.parametrize("method", list(METHODS))
def test_what_is_killed_goes_on_to_the_same_bits(
    method, made: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, small = METHODS[method]
    how = {"method": method, "data": world / "unlabelled", "out": tmp_path, **small}
    if method != "tokenizer":
        how["tokenizer"] = made / "tok"
    pretrain(name="whole", execution=ALONE, **how)
    real = kind.after_step

    def interrupt(self, step, num_steps):
        real(self, step, num_steps)
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "after_step", interrupt)
        with pytest.raises(Interrupted):
            pretrain(name="halves", execution=ALONE, **how)
    pretrain(name="halves", execution=ALONE, **how)
    name = "tokenizer" if method == "tokenizer" else "backbone"
    one, other = (load_file(tmp_path / n / f"{name}.safetensors") for n in ("whole", "halves"))
    assert all(one[key].equal(value) for key, value in other.items())


def test_another_tokenizer_is_another_run(made: Path, world: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save(load_file(made / "tok" / "tokenizer.safetensors"), other, {"method": "tokenizer"})
    _, small = METHODS["beit"]
    beit = {**small, "method": "beit", "data": world / "unlabelled", "execution": ALONE}
    beit |= {"out": tmp_path / "runs", "name": "one"}
    pretrain(tokenizer=made / "tok", **beit)
    with pytest.raises(RunError, match="one"):
        pretrain(tokenizer=other, **beit)


def test_tokens_that_are_not_dall_es_are_told(made: Path) -> None:
    """Beside the paper's numbers; the miniature world's own recipe has such a tokenizer."""
    tokens = read_tokenizer(made / "tok" / "tokenizer.safetensors")
    assert apart("vit_b", tokens) == ["tokens by a tokenizer of ours, not DALL-E's"]
    for metadata in ({}, {"format": "pt"}):  # DALL-E's, as it is or in a file of safetensors
        theirs = replace(tokens, metadata=metadata)
        assert apart("vit_b", theirs) == []
        assert "DALL-E's layout" in str(theirs)
    assert apart("vit_mini", tokens) == apart("vit_b", None) == []


def test_a_codebook_that_has_collapsed_is_an_error(world: Path) -> None:
    base = override(recipe("pretrain", "vit_mini", "tokenizer"), {"width": 4})
    task = TokenizerPretraining(base, [world / "unlabelled"], 0)
    torch.nn.init.zeros_(task.vae.encoder.blocks.output.conv.weight)
    with pytest.raises(RunError, match=r"collapsed: one of 128 codes names every patch of 24"):
        task.evaluate()


def test_views_depend_on_seed_epoch_and_index_alone(world: Path) -> None:
    images = UnlabelledImages([world / "unlabelled"], 32, 0.5, seed=3)
    views = BeitViews(images, 48, 0.4, 4, 6, (1, None))
    keys = [(0, 5), (1, 5), (0, 6)]
    batch, alone = views.__getitems__(keys), views.__getitems__(keys[1:2])
    assert batch["images"].shape == (3, 3, 32, 32)
    assert batch["token_images"].shape == (3, 3, 48, 48)
    for name in ("images", "token_images", "mask"):
        assert batch[name][1].equal(alone[name][0])
        assert len({tuple(row.flatten().tolist()) for row in batch[name]}) == 3
    small = torch.nn.functional.avg_pool2d(batch["token_images"].float(), 12).flatten(1)
    large = torch.nn.functional.avg_pool2d(batch["images"].float(), 8).flatten(1)
    assert float((small - large).abs().mean()) < 6  # one crop, of the same colours
    plain = TokenViews(images, 48).__getitems__(keys)
    assert plain["images"].equal(images.__getitems__(keys)["images"])


def test_both_numbers_of_a_tokenizer_are_annealed(world: Path) -> None:
    changes = {"epochs": 10, "temperature_epochs": 8.0, "kl_epochs": 2.0}
    base = override(recipe("pretrain", "vit_mini", "tokenizer"), changes)
    task = TokenizerPretraining(base, [world / "unlabelled"], 0)
    found = []
    for step in (0, 10, 40, 80, 100):
        task.after_step(step, 100)
        found.append((round(task.temperature(), 4), round(task.kl_weight(), 4)))
    assert found == [(1.0, 0.0), (0.9643, 3.3), (0.5312, 6.6), (0.0625, 6.6), (0.0625, 6.6)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "beit"}, "--method beit needs --tokenizer: there is no finished tokenizer for"),
        ({"target": "tokens"}, "--method mae --target tokens needs --tokenizer: there is no"),
        ({"method": "beit", "tokenizer": "tok", "codebook": 8}, "has 16 codes, and the recipe"),
        ({"method": "beit", "tokenizer": "nowhere"}, "--tokenizer nowhere: no such file and no"),
        ({"tokenizer": "tok"}, "--tokenizer: this recipe predicts no tokens; leave it out"),
        ({"method": "beit", "tokenizer": "empty"}, "is no finished run; expected a run of"),
        ({"codebook": 16}, "codebook is 16; expected none without target tokens"),
        ({"target": "tokens", "norm_pix": ""}, "norm_pix is True; expected False with target"),
        ({"method": "beit", "token_size": 64}, "expected 32: a code stands for 8 x 8 pixels"),
        ({"method": "beit", "num_masked": 17}, "at most the 16 patches of an image"),
        (
            {"method": "beit", "num_masked": 16, "min_block": 10},
            "min_block is 10; expected at most 9: a block leaves a row and a column",
        ),
        ({"method": "tokenizer", "image_size": 30}, "image_size is 30; expected a multiple of 8"),
        (
            {"method": "beit", "tokenizer": "tok", "checkpoint": "file"},
            "starts from random weights",
        ),
        (
            {"method": "beit", "backbone": "timm:vit_tiny_patch16_224"},
            "cannot be pre-trained as BEiT, which has an anatomy of its own",
        ),
        ({"method": "beit", "backbone": "vit_t"}, "make one: mae-bench pretrain --method token"),
        ({"method": "beit", "tokenizer": __file__}, f"tokenizer {__file__}: "),
    ],
)
def test_what_does_not_go_together_ends_in_one_line(
    settings, message, made: Path, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    file = made / "tok" / "tokenizer.safetensors"
    place = {"tok": made / "tok", "file": file, "empty": tmp_path / "empty"}
    given = {k: place.get(v, v) if isinstance(v, str) else v for k, v in settings.items()}
    argv = ["pretrain", *flags(data=world / "unlabelled", out=tmp_path), *flags(**given)]
    assert call([word for word in argv if word]) == 2
    said = capsys.readouterr()
    assert message in said.err.replace("\n", " ")
    assert said.err.strip().count("\n") == 0
    assert [each.name for each in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "beit"},
        {"target": "tokens", "tokenizer": "nowhere"},
        {"method": "moco_v3", "tokenizer": "nowhere"},
        {"method": "beit", "checkpoint": "nowhere"},
    ],
)
def test_that_line_does_not_wait_for_torch(settings, monkeypatch, tmp_path: Path, capsys) -> None:
    """The command sees it itself, before it calls what imports torch."""
    monkeypatch.setattr("mae_bench.pretrain", None)
    assert call(["pretrain", *flags(out=tmp_path, **settings)]) == 2
    assert "mae-bench: error: --" in capsys.readouterr().err
