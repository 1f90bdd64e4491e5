"""The command line: bad input that ends in one line and exit code 2."""

import errno
import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_runs import SMALL_MAE, assert_same_bits, flags

import mae_bench
from mae_bench.cli import call
from mae_bench.errors import RunError
from results import read_records
from tasks.errors import AloneError


def fails(argv: list[str], capsys) -> str:
    """The one line on standard error of a command that must end with exit code 2."""
    assert call(argv) == 2
    said = capsys.readouterr().err
    assert said.startswith("mae-bench: error: ")
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("pretrian", "did you mean pretrain"),
        ("transfer --task imagnet1k", "did you mean imagenet1k"),
        ("transfer --backbone vit_bb", "did you mean vit_b"),
        ("transfer --protocol finetun", "did you mean finetune"),
        ("transfer --epoch 3", "did you mean --epochs"),
        ("pretrain --epochs many", "--epochs: expected a whole number, not 'many' (see"),
        ("pretrain --mask-ratio half", "--mask-ratio: expected a number, not 'half' (see"),
        ("pretrain --task coco", "does not take --task coco; transfer and runs list would (see"),
        ("transfer --mask-ratio 0.5", "does not take --mask-ratio 0.5; pretrain --method mae wo"),
        ("report --compare one", "--compare: expected ONE OTHER (see"),
        (
            "pretrain --precision fp16",
            "--precision is 'fp16'; expected fp32, bf16 (see",
        ),
        ("report --runs", "--runs lacks a value; expected 1"),
        ("data", "data lacks a command; expected one of make, list, check (see mae-bench data --h"),
        ("pretrain --epochs 0", "epochs is 0; expected at least 1"),
        ("pretrain --seed -1", "seed"),
        ("pretrain --data /no/such/folder", "/no/such/folder: no such folder"),
        ("pretrain --mask-ratio 1.5", "mask_ratio"),
        ("transfer", "needs --checkpoint"),
        ("transfer --protocol scratch --data /no/such/folder", "no such folder"),
        (f"transfer --protocol scratch --data {__file__}", f"--data {__file__}: is a file; expe"),
        ("data check coco --root /no/such/folder", "--root /no/such/folder: no such folder; exp"),
        (f"data check imagenet1k --root {__file__}", f"--root {__file__}: is a file; expected"),
        ("report --runs /no/such/folder", "no such folder"),
        ("transfer --bogus 1", "transfer does not take --bogus 1 (see mae-bench transfer --help)"),
        ("pretrain --limit 3", "does not take --limit 3; transfer and evaluate would (see"),
        ("pretrain --betas 0.9", "--betas lacks a value; expected 2"),
        ("pretrain --device-batch 7", "expected a divisor of batch_size 128 (give both)"),
        ("pretrain --warmup-epochs 11", "warmup_epochs is 11.0; expected at most epochs 10 (give"),
        ("pretrain --base-lr nan", "base_lr is nan"),
        ("pretrain --base-lr inf", "base_lr is inf"),
        ("pretrain --epochs 2 --warmup-epochs 3", "warmup_epochs is 3.0; expected at most"),
        ("pretrain --seed 99999999999999999999", "seed is 99999999999999999999; expected"),
        ("pretrain --workers -1", "workers is -1; expected a whole number, 0 or more"),
        ("pretrain --save-minutes nan", "save_minutes is nan; expected 0 or more"),
        ("pretrain --max-bad-images -1", "max_bad_images is -1; expected a whole number, 0"),
        ("report --runs . --output .", "--output .: is a folder"),
    ],
)
def test_bad_flags(argv, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert said in fails(argv.split(), capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("columns", [30, 200])
def test_a_bad_flag_in_a_terminal(encoding, columns):
    """There tyro draws boxes in colour, or in ASCII, and breaks their lines."""
    ours, theirs = os.openpty()
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": str(columns)}
    argv = [sys.executable, "-m", "mae_bench.cli", "pretrain", "--epoch", "3"]
    code = subprocess.call(argv, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    said = os.read(ours, 10_000).decode()
    os.close(ours)
    assert code == 2
    assert said == (
        "mae-bench: error: pretrain does not take --epoch 3; did you mean --epochs or "
        "--warmup-epochs? (see mae-bench pretrain --help)\r\n"
    )


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("--batch-size 64", "24 training images are fewer than the batch of 64; these numbers"),
        ("--image-size 33", "33 is not divisible by the patch size 8 of vit_mini; nearest: 32"),
        ("--mask-ratio 0.99", "leaves and removes some of 4 x 4 patches"),
        ("--decoder-dim 30", "decoder_dim is 30; expected a multiple of 4"),
        ("--betas 0.9 1.5", "betas is (0.9, 1.5); expected at least 0 and below 1"),
        ("--decoder-dim 4000000000 --decoder-heads 1", "expected at least 1 and at most 65,536"),
    ],
)
def test_numbers_that_do_not_fit_leave_no_folder(argv, said, world, tmp_path, capsys):
    changes = {**SMALL_MAE, "device_batch": 8}
    given = flags(data=world / "unlabelled", out=tmp_path / "runs", **changes)
    assert said in fails(["pretrain", *given, *argv.split()], capsys)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("limit", ["0", "-3"])
def test_a_limit_is_at_least_one_image(limit, world, tmp_path, capsys):
    argv = ["transfer", *flags(data=world / "imagenet1k", out=tmp_path / "runs", limit=limit)]
    said = fails([*argv, "--protocol", "scratch"], capsys)
    assert f"limit is {limit}; expected at least 1 image" in said
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def checkpoints(pretrained: Path, tmp_path: Path) -> Path:
    """Files that are no backbone checkpoint."""
    whole = (pretrained / "backbone.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "text.pth").write_text("no checkpoint")
    torch.save({"model": {"a": torch.zeros(3)}}, tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing.pth", "no such file"),
        ("cut.safetensors", "truncated"),
        ("empty.pth", "empty.pth"),
        ("text.pth", "text.pth"),
        ("other.pth", "is in no known layout"),
        ("list.pth", "no state dict"),
    ],
)
def test_bad_checkpoints(name, said, checkpoints, world, tmp_path, capsys):
    argv = ["transfer", *flags(checkpoint=checkpoints / name, data=world / "imagenet1k")]
    assert said in fails([*argv, *flags(out=tmp_path / "runs")], capsys)
    assert not (tmp_path / "runs").exists()


def test_checkpoint_of_another_backbone(pretrained, world, tmp_path, capsys):
    argv = ["transfer", "--backbone", "vit_t", *flags(data=world / "imagenet1k", out=tmp_path)]
    said = fails([*argv, *flags(checkpoint=pretrained / "backbone.safetensors")], capsys)
    assert "holds a vit_mini; asked for vit_t" in said


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda root: None, "train: missing; get "),
        (lambda root: [(root / s).mkdir() for s in ("train", "val")], "no class folders"),
        (lambda root: (root / "train" / "a").mkdir(parents=True), "val: missing; get "),
        (
            lambda root: [(root / s / "a").mkdir(parents=True) for s in ("train", "val")],
            "train: 1 of 1 class folders hold no image: a",
        ),
    ],
)
def test_bad_data_folders(build, said, tmp_path, capsys):
    root = tmp_path / "data with ä space"
    root.mkdir()
    build(root)
    argv = ["transfer", "--protocol", "scratch", *flags(data=root, out=tmp_path / "runs")]
    assert said in fails(argv, capsys)
    assert not (tmp_path / "runs").exists()


def test_a_folder_without_images(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    argv = ["pretrain", *flags(data=tmp_path / "data", out=tmp_path / "runs")]
    assert str(tmp_path / "data") in fails(argv, capsys)
    assert not (tmp_path / "runs").exists()


def test_an_out_that_is_a_file(world, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    argv = ["pretrain", *flags(data=world / "unlabelled", out=tmp_path / "file", **SMALL_MAE)]
    assert f"{tmp_path}/file is a file; choose another --out" in fails(argv, capsys)


def test_an_out_that_cannot_be_written(world, capsys):
    """No folder can be made in /proc, whoever asks."""
    argv = ["pretrain", *flags(data=world / "unlabelled", out="/proc/runs", **SMALL_MAE)]
    assert "/proc/runs: No such file or directory" in fails(argv, capsys)


def test_odd_paths(world, tmp_path, monkeypatch, capsys):
    """Spaces, other scripts, what rich takes for markup, a link, relative paths, raw bytes."""
    place = tmp_path / "a b [red]ü[/b] :smile: 模型"
    images = place / "images"
    images.mkdir(parents=True)
    (place / "link").symlink_to(images)
    for number, file in enumerate(sorted((world / "unlabelled").glob("*.JPEG"))):
        shutil.copy(file, images / f"{number} [bold].JPEG")
    raw = os.fsencode(images) + b"/caf\xe9.JPEG"
    shutil.copy(file, raw)
    monkeypatch.chdir(place)
    argv = ["pretrain", *flags(data="link", out="runs [i]", name="[x] é", **SMALL_MAE)]
    assert call(argv) == 0
    assert "runs [i]/[x] é/backbone.safetensors" in capsys.readouterr().out.replace("\n", "")
    (record,), _ = read_records(place / "runs [i]")
    assert record.name == "[x] é"
    assert record.data.train_images == 25
    assert call(["report", "--runs", "runs [i]"]) == 0


def test_a_file_name_in_raw_bytes_can_be_told(world, tmp_path, capsys):
    """Of an unreadable image, and of images whose loss is not finite."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(8):
        Image.new("RGB", (40, 40), (30 * number, 0, 0)).save(folder / f"{number}.png")
    for number in range(8):
        (folder / f"{number}.png").rename(os.fsdecode(bytes(folder) + b"/\xe9%d.png" % number))
    argv = ["pretrain", *flags(data=folder, out=tmp_path / "runs", **SMALL_MAE)]
    said = fails([*argv, "--base-lr", "1e30", "--warmup-epochs", "0"], capsys)
    assert "loss is not finite at step 2 of 2" in said
    assert len((tmp_path / "runs/pretrain-vit_mini-seed0/not_finite.txt").read_bytes()) > 100


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".."])
def test_a_name_stays_inside_out(name, world, tmp_path, capsys):
    argv = ["pretrain", *flags(data=world / "unlabelled", out=tmp_path / "runs", name=name)]
    assert "name of one folder" in fails(argv, capsys)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_full_or_read_only_disk_loses_nothing(number, world, tmp_path, capsys, monkeypatch):
    """Saving fails in the middle of a run; later the same command ends as an undisturbed one."""
    argv = ["pretrain", *flags(data=world / "unlabelled", name="run", save_minutes=0)]
    argv += flags(**SMALL_MAE)
    assert call([*argv, *flags(out=tmp_path / "undisturbed")]) == 0
    save, calls = torch.save, []

    def full(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise OSError(number, "disk trouble", "state")
        return save(*arguments, **options)

    monkeypatch.setattr(torch, "save", full)
    capsys.readouterr()
    disturbed = [*argv, *flags(out=tmp_path / "disturbed")]
    assert "disk trouble" in fails(disturbed, capsys)
    folder = tmp_path / "disturbed" / "run"
    assert [file.name for file in sorted((folder / "state").iterdir())] == [
        "step-00000001.pt",
        "step-00000002.pt",
    ]
    assert not list(folder.rglob("*.partial"))
    monkeypatch.undo()
    assert call(disturbed) == 0
    assert_same_bits(folder, tmp_path / "undisturbed" / "run", "backbone.safetensors")


def test_a_missing_package_points_to_the_doctor(capsys, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(importlib.import_module("mae_bench.pretrain"), "pretrain", broken)
    assert "mae-bench doctor" in fails(["pretrain"], capsys)


@pytest.fixture
def raising(monkeypatch):
    """raising(error): make `pretrain` raise it."""

    def patch(error: BaseException) -> None:
        def broken(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(importlib.import_module("mae_bench.pretrain"), "pretrain", broken)

    return patch


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nmore"), "9 GiB)"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory (D"),
        (MemoryError(), "out of memory (MemoryError); use a smaller --device-batch"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "fewer --workers"),
        (RunError("a name with\na line break"), "error: a name with a line break"),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), "/x/y: No space left on device"),
    ],
)
def test_what_is_no_fault_of_the_program_is_one_line(error, said, raising, capsys):
    raising(error)
    assert said in fails(["pretrain"], capsys)


def test_a_fault_of_the_program_keeps_its_traceback(raising):
    raising(RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        call(["pretrain"])


def test_ctrl_c_where_nothing_trains(raising, capsys):
    raising(KeyboardInterrupt())
    assert call(["pretrain"]) == 130
    assert capsys.readouterr().err == "mae-bench: stopped\n"


def test_of_several_processes_the_first_speaks(raising, monkeypatch, capsys):
    """The others only of what they alone can know."""
    monkeypatch.setenv("RANK", "1")
    raising(RunError("all of us see this"))
    assert call(["pretrain"]) == 2
    assert capsys.readouterr().err == ""
    raising(AloneError("only I see this"))
    assert "only I see this" in fails(["pretrain"], capsys)
    raising(RuntimeError("[gloo/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4711"))
    assert "lost another process of this run (" in fails(["pretrain"], capsys)


def test_python_functions_have_the_names_of_the_commands():
    for name in mae_bench.__all__:
        assert callable(getattr(mae_bench, name))
        assert name in dir(mae_bench)


def test_a_name_is_the_function_whoever_imported_the_module():
    importlib.import_module("mae_bench.report")
    import mae_bench.report as report

    assert report is mae_bench.report
    assert report.__name__ == "report"


def test_the_version(capsys):
    with pytest.raises(SystemExit) as end:
        call(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"mae-bench {mae_bench.__version__}\n"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("", "mae-bench lacks a command; expected one of quickstart, pretrain, transfer, "),
        ("--bogus", "mae-bench does not take --bogus (see mae-bench --help)"),
        ("runs shwo", "unknown command runs 'shwo'; did you mean show? there are list, show, "),
        ("runs --runs x list", "runs does not take --runs x; runs list and runs show and "),
        ("weights convert x --to onnx", "--to is 'onnx'; expected timm, hf, mae"),
        ("weights list x", "weights list does not take x"),
        ("weights --version", "weights does not take --version"),
        ("doctor --runs x", "doctor does not take --runs x"),
        ("data check --format x", "NAME lacks a value; expected 1 (see"),
        ("evaluate", "evaluate lacks RUN "),
        ("--tyro-print-completion csh", "unknown shell 'csh'; did you mean "),
    ],
)
def test_bad_commands(argv, said, capsys):
    assert fails(argv.split(), capsys).startswith(f"mae-bench: error: {said}")


@pytest.mark.parametrize("argv", ["--help", "transfer --help", "--version", "data list"])
def test_a_closed_pipe_is_no_error(argv):
    """As in `mae-bench --help | head`, whose end comes before all is written."""
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "-m", "mae_bench.cli", *argv.split()]
    done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert done.stderr == b""
    assert done.returncode == 0


def test_closed_streams():
    """As a daemon may start us."""
    words = [sys.executable, "-m", "mae_bench.cli", "--help"]
    ask = f"{' '.join(words)} >&- 2>&-"
    assert subprocess.run(["bash", "-c", ask], check=False).returncode == 0
