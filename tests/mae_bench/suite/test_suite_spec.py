"""What a suite says, and which runs that is."""

import os
from pathlib import Path

import pytest

from backbones import BackboneError
from mae_bench.data import MINI
from mae_bench.errors import RunError
from mae_bench.execution import Execution
from mae_bench.suite.choosing import chosen_spec
from mae_bench.suite.expansion import expand
from mae_bench.suite.folders import find_data, patterns
from mae_bench.suite.runs import flag, shortened
from mae_bench.suite.spec import read_spec, write_spec
from mae_bench.suite.tables import names, table_suite
from results import ResultsError
from results.paper.layout import OF_PRETRAINING
from results.paper.places import our_protocols
from results.paper.tables import PAPER_TABLES
from tasks.errors import TaskError

TEXT = """
data = "mini"
seeds = [0, 3]

[weights.deep]
pretrain = {decoder_depth = 4, seed = 7}

[[measure]]
backbones = ["vit_mini"]
weights = ["deep", "pretrain:mae", "scratch"]
tasks = ["imagenet1k", "imagenet_a"]
protocols = ["finetune", "linear"]
"""
MAE = ("pretrain", "mae")
FLAGS = dict.fromkeys(("backbone", "checkpoint", "init", "pretrain", "tasks", "protocols"), ())
FLAGS |= {"overrides": {}, "pretrain_overrides": {}, "released": False}


def asked(what=None, seeds=None, data=None, data_root=None, **flags):
    return chosen_spec(what, seeds=seeds, data=data, data_root=data_root, **FLAGS | flags)[0]


@pytest.fixture
def file(tmp_path):
    (tmp_path / "suite.toml").write_text(TEXT)
    return tmp_path / "suite.toml"


def test_a_file_is_multiplied_out(file):
    found = expand(read_spec(file))
    names = [run.name for run in found.runs]
    assert len(names) == len(set(names))
    # 1 + 2 pre-trainings (one has a seed of its own); from each by two protocols for two seeds, and
    # from random weights by the one that goes with them; each of these tested on imagenet_a too.
    commands = [run.command for run in found.runs]
    assert commands.count("pretrain") == 3
    assert commands.count("transfer") == commands.count("evaluate") == 2 * (2 * 2 + 1)
    for run in found.runs:
        assert run.needs is None or found.runs.index(run.needs) < found.runs.index(run)
    assert [line for line in found.left_out if "linear from scratch" in line]
    deep = next(run for run in found.runs if "decoder_depth" in run.name)
    assert deep.words(Path("runs"), {}, Execution())[-2:] == ["--decoder-depth", "4"]


def test_written_is_read_back(file, tmp_path):
    spec = read_spec(file)
    write_spec(spec, tmp_path / "again.toml")
    assert read_spec(tmp_path / "again.toml") == spec


@pytest.mark.parametrize("name", names())
def test_a_table_written_gives_the_same_runs(name, tmp_path):
    spec, _ = table_suite(name, miniature=True)
    write_spec(spec, tmp_path / "table.toml")
    assert expand(read_spec(tmp_path / "table.toml")).runs == expand(spec).runs


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("seeds", "seds"), "unknown key seds; did you mean seeds"),
        (("weights =", "wieghts ="), "unknown key measure.0.wieghts; did you mean weights"),
        (("pretrain =", "pretrian ="), "unknown key weights.deep.pretrian; did you mean pretrain"),
        (('"deep", ', '"dep", '), "unknown weights 'dep'; did you mean deep"),
        (('"imagenet_a"', '"imagenet_b"'), "unknown task 'imagenet_b'; did you mean imagenet_"),
        (("decoder_depth", "decoder_deep"), "'decoder_deep'; did you mean decoder_dept"),
        (('"linear"', '"liner"'), "unknown protocol 'liner'; did you mean linear"),
        (("[0, 3]", '"many"'), "seeds"),
        (("[0, 3]", "[]"), r"seeds is \[\]; expected at least one"),
        (("vit_mini", "vit_x"), "vit_x"),
        (('"mini"', '"/data"'), 'data is "mini" or not there'),
        (("seeds =", "seeds"), "no TOML"),
        (("[0, 3]", "9" * 5000), "no TOML .*4300 digits"),
        (("[0, 3]", "9" * 30), "seeds is 9+; expected at least one"),
        (("seed = 7", 'seed = "7"'), "weights.deep.*seed of pretrain is '7'; expected a whole"),
        (("seed = 7", "seed = -7"), "seed is -7"),
        (("seed = 7", "method = 7"), "method of pretrain is 7; expected a text"),
        (('"mini"', '"a\\u0000b"'), "NUL character"),
        (("seeds =", 'tokenizer = "t.pkl"\nseeds ='), "tokenizer t.pkl: no pre-training"),
        (("protocols =", "overrides = []\nprotocols ="), "measure.0.overrides.*at least 1"),
    ],
)
def test_what_cannot_be_meant_is_one_line(file, change, said):
    file.write_text(TEXT.replace(*change))
    with pytest.raises((RunError, TaskError, BackboneError), match=said) as error:
        expand(read_spec(file))
    assert "\n" not in str(error.value)


def test_an_unknown_suite_has_near_matches():
    with pytest.raises(RunError, match="did you mean table-4"):
        asked("table4")
    with pytest.raises(RunError, match="suite table-4 says that itself"):
        asked("table-4", tasks=("coco",))
    with pytest.raises(RunError, match="which weights"):
        asked(tasks=("coco",))


def test_what_changes_nothing_is_the_same_run():
    plain = asked(tasks=("coco",), pretrain=("mae",))
    same = asked(tasks=("coco",), pretrain=("mae",), pretrain_overrides={"decoder_depth": 2})
    other = asked(tasks=("coco",), pretrain=("mae",), pretrain_overrides={"decoder_depth": 3})
    assert expand(plain).runs == expand(same).runs
    assert not set(expand(plain).runs) & set(expand(other).runs)


def test_tables_share_their_runs():
    runs = [set(expand(table_suite(name)[0]).runs) for name in ("table-3", "table-4", "table-5")]
    before = [{run for run in each if (run.task, run.protocol) == MAE} for each in runs]
    assert before[1] == before[2] < before[0]


@pytest.mark.parametrize("key", PAPER_TABLES)
def test_every_place_that_can_hold_a_run_of_mae_is_asked_for(key):
    """By the protocols that results say belong into it."""
    table = PAPER_TABLES[key]
    name = dict(zip(PAPER_TABLES, names(), strict=True))[key]
    spec, left_out = table_suite(name)
    runs = expand(spec).runs
    protocols = {
        f"{run.task}/" + run.recipe.protocol.partition("/")[2] if run.needs else "" for run in runs
    }
    for row in table.rows:
        if row.where["method"] != "MAE" or not row.ours or row.minus:
            continue
        if table.settings and row.pretrained is None:
            assert any(", ".join(row.labels) in line for line in left_out)
            continue
        if (row.pretrained or {}).get("target") == "tokens" and left_out:
            assert "'tokens'" in left_out[0]
            continue
        for score in table.scores:
            where = {**row.where, **score.where}
            pretraining = where["metric"] in OF_PRETRAINING
            if score.ours and where["backbone"] != "other" and not pretraining:
                alike = {protocol for protocol, _ in our_protocols(where)}
                assert alike & protocols, where


def test_settings_of_a_row_are_those_of_its_pretraining():
    """So that the run stands in its row: the paper's defaults, and what the row changes."""
    spec, _ = table_suite("table-1f")
    masks = {
        (run.recipe.mask, run.recipe.mask_ratio, run.recipe.norm_pix, run.recipe.epochs)
        for run in expand(spec).runs
        if run.command == "pretrain"
    }
    ratios = {("random", 0.75), ("block", 0.5), ("block", 0.75), ("grid", 0.75)}
    assert masks == {(mask, ratio, False, 800) for mask, ratio in ratios}


def test_a_tokenizer_of_weights_that_predict_no_tokens_is_refused(file):
    file.write_text(TEXT.replace("seed = 7}", 'seed = 7, tokenizer = "encoder.pkl"}'))
    with pytest.raises(RunError, match=r"encoder\.pkl: pre-training by mae predicts no tokens"):
        expand(read_spec(file))


def test_tokens_take_a_tokenizer_that_is_made_before():
    runs = expand(asked(tasks=("coco",), pretrain=("beit", "mae"), seeds=2)).runs
    made = [run for run in runs if run.protocol == "tokenizer"]
    assert [run.seed for run in made] == [0]
    assert runs.index(made[0]) == 0
    for run in (run for run in runs if run.protocol == "beit"):
        words = run.words(Path("runs"), {made[0]: "mine"}, Execution())
        assert words[-2:] == ["--tokenizer", "runs/mine"]
    assert all(run.tokenizer is None for run in runs if run.protocol != "beit")
    runs = expand(asked(tasks=("coco",), pretrain=("beit",), tokenizer="encoder.pkl")).runs
    assert runs[0].protocol == "beit"
    assert runs[0].words(Path("runs"), {}, Execution())[-2:] == ["--tokenizer", "encoder.pkl"]
    with pytest.raises(RunError, match="makes no encoder"):
        expand(asked(tasks=("coco",), pretrain=("tokenizer",)))


def test_data_are_found_below_a_folder(tmp_path):
    for file in (
        "images/coco17/train2017/1.jpg",
        "images/coco17/val2017/1.jpg",
        "images/coco17/annotations/instances_train2017.json",
        "images/coco17/annotations/instances_val2017.json",
        "ILSVRC/train/n01440764/1.JPEG",
        "ILSVRC/val/n01440764/1.JPEG",
        "imagenet-a/n01440764/1.jpg",
        "imagenet-r/n01440764/1.jpg",
    ):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    found = find_data(["coco", "imagenet1k", "imagenet_a"], tmp_path, {})
    assert found == {
        "coco": str(tmp_path / "images/coco17"),
        "imagenet1k": str(tmp_path / "ILSVRC"),
        "imagenet_a": str(tmp_path / "imagenet-a"),
    }
    assert find_data(["coco", "ade20k"], None, {"ade20k": "/x"}) == {"coco": MINI, "ade20k": "/x"}
    with pytest.raises(RunError, match=r"no ade20k \(images.*; no places205"):
        find_data(["ade20k", "coco", "places205"], tmp_path, {})
    (tmp_path / "images/coco17/val2017/1.jpg").unlink()
    with pytest.raises(RunError, match="no coco"):
        find_data(["coco"], tmp_path, {})


def test_archives_of_the_official_releases_are_data_too(tmp_path):
    """By their names alone; compressed ones, which are not read as they are, are no data."""
    for file in (
        "imagenet/ILSVRC2012_img_train.tar",
        "imagenet/ILSVRC2012_img_val.tar",
        "coco/train2017.zip",
        "coco/val2017/1.jpg",
        "coco/annotations_trainval2017.zip",
        "robust/imagenet-a.tar",
        "robust/imagenet-r.tar",
        "inat/train_val2018.tar.gz",
        "inat/train2018.json",
        "inat/val2018.json",
    ):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    names = ["imagenet1k", "coco", "imagenet_a", "imagenet_r"]
    found = find_data(names, tmp_path, {})
    assert [Path(found[name]).name for name in names] == ["imagenet", "coco", "robust", "robust"]
    with pytest.raises(RunError, match="no inat2018"):
        find_data(["inat2018"], tmp_path, {})
    (tmp_path / "inat/train_val2018.tar.gz").rename(tmp_path / "inat/train_val2018.tar")
    assert find_data(["inat2018"], tmp_path, {}) == {"inat2018": str(tmp_path / "inat")}
    (tmp_path / "coco/val2017/1.jpg").unlink()
    (tmp_path / "coco/val2017").rmdir()
    with pytest.raises(RunError, match="no coco"):
        find_data(["coco"], tmp_path, {})


def test_layouts_are_read_as_patterns():
    assert patterns("{train,val}7.json and x/<a>/*.jpg") == [
        "train7.json",
        "val7.json",
        "x/*/*.jpg",
    ]


def test_long_names_stay_apart():
    one, two = shortened("a" * 300), shortened("a" * 299 + "b")
    assert one != two
    assert len(one) < 200


def test_a_table_to_report_that_there_is_none_of_is_said_before_anything_runs(file):
    file.write_text('report = ["44"]\n' + TEXT)
    with pytest.raises(ResultsError, match="44"):
        asked(file)


def test_a_pipe_is_no_suite(tmp_path):
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(RunError, match=r"pipe\.toml: is a named pipe, not a regular file"):
        read_spec(tmp_path / "pipe.toml")


def test_a_value_that_begins_with_a_dash_is_no_flag():
    assert flag("init", "--seed") == ["--init=--seed"]
    assert flag("min_lr", 1e-6) == ["--min-lr", "1e-06"]


def test_a_sweep_belongs_to_what_a_run_is(file, tmp_path):
    text = TEXT.replace('"pretrain:mae", ', "") + "sweep = {base_lr = [1e-4, 1e-3]}\n"
    file.write_text(text)
    runs = expand(read_spec(file)).runs
    transfers = [run for run in runs if run.command == "transfer"]
    plain = expand(read_spec_of(file, text.replace("sweep =", "# sweep ="))).runs
    assert not set(transfers) & set(plain)
    assert not {run.name for run in transfers} & {run.name for run in plain}
    words = transfers[0].words(tmp_path, {}, Execution())
    assert words[words.index("--sweep") + 1] == "base_lr=0.0001,0.001"
    tested = next(run for run in runs if run.command == "evaluate")
    assert tested.needs in transfers
    write_spec(read_spec_of(file, text), file)
    assert expand(read_spec(file)).runs == runs
    for change, said in (
        ("bas_lr", "did you mean base_lr"),
        ("precision", "how a run is computed"),
    ):
        with pytest.raises(RunError, match=said):
            expand(read_spec_of(file, text.replace("base_lr", change)))
    with pytest.raises(RunError, match="a pre-training has no score to choose by"):
        expand(read_spec_of(file, text.replace('"imagenet_a"', '"pretrain"')))
    with pytest.raises(RunError, match="sweep_holdout"):
        read_spec_of(file, text + "sweep_holdout = 1.5\n")
    with pytest.raises(RunError, match="holds out; there is no sweep"):
        read_spec_of(file, text.replace("sweep =", "# sweep =") + "sweep_holdout = 0.2\n")
    with pytest.raises(RunError, match="it lists one twice"):
        expand(read_spec_of(file, text + "seeds = [0, 0]\n"))


def read_spec_of(file, text):
    file.write_text(text)
    return read_spec(file)


def test_flags_of_a_sweep_are_those_of_a_file():
    flags = {"tasks": ["imagenet1k"], "init": ["scratch"]}
    (run,) = expand(asked(sweep={"epochs": [1, 2]}, sweep_holdout=0.2, **flags)).runs
    assert run.sweep == (("epochs", (1, 2)),)
    assert run.holdout == 0.2
    with pytest.raises(RunError, match="--sweep-holdout: nothing is swept"):
        asked(sweep_holdout=0.2, **flags)
    with pytest.raises(RunError, match="--sweep: suite table-4 says that itself"):
        asked("table-4", sweep={"epochs": [1, 2]})
    with pytest.raises(TypeError, match="no argument tassk"):
        chosen_spec(None, tassk=["coco"])
