"""--sweep: settings chosen by held-out training images; the test set is scored at the end."""

import json
import shutil
import sys

import pytest
from pairs import in_two_processes
from small_runs import SMALL, assert_same_bits, assert_same_run, flags, steps_logged, wait_for

from mae_bench.cli import call
from mae_bench.errors import Diverged, RunError
from mae_bench.execution import Execution
from mae_bench.grid import choose, read_grid, read_sweep
from mae_bench.recipes import recipe
from mae_bench.suite.choosing import chosen_spec
from mae_bench.suite.expansion import expand
from mae_bench.suite.there import There
from mae_bench.transfer import transfer
from results import comparison_table, configurations, parse_record, published, read_records

ALONE = Execution(workers=0, device="cpu")
RATES = [1e-5, 1e-4, 1e-3]
"""of which the second is the best here"""
SHORT = SMALL | {"epochs": 1, "warmup_epochs": 0.0}


def run(world, out, name="swept", **changes):
    given = {"protocol": "scratch", "data": world / "imagenet1k", "execution": ALONE}
    return transfer(out=out, name=name, **given | SHORT | changes)


def words(world, out, *more, protocol="scratch"):
    common = flags(protocol=protocol, data=world / "imagenet1k", out=out, name="swept", workers=0)
    return ["transfer", *common, "--device", "cpu", *more]


def candidates(folder):
    return sorted(each.name for each in (folder / "candidates").iterdir())


@pytest.fixture(scope="module")
def swept(world, tmp_path_factory):
    """A sweep, during which there were no test images."""
    out = tmp_path_factory.mktemp("sweep")
    data = out / "imagenet1k"
    shutil.copytree(world / "imagenet1k", data)
    sweep_module = __import__("mae_bench.sweep", fromlist=["search"])
    search, hidden = sweep_module.search, data / "hidden"

    def blind(*arguments):
        (data / "val").rename(hidden)
        try:
            return search(*arguments)
        finally:
            hidden.rename(data / "val")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep_module, "search", blind)
        run(world, out, data=data, sweep={"base_lr": RATES}, sweep_holdout=0.5)
    return out


def test_the_whole_sweep_is_recorded_and_marks_the_result(swept):
    record = parse_record((swept / "swept" / "record.json").read_bytes())
    sweep = record.sweep
    assert sweep.grid == {"base_lr": RATES}
    assert [each.values["base_lr"] for each in sweep.tried] == RATES
    scores = [each.score for each in sweep.tried]
    assert scores.index(max(scores)) == 1
    assert sweep.chosen == {"base_lr": RATES[1]}
    assert record.recipe["base_lr"] == sweep.chosen["base_lr"]
    assert sweep.held_out.images + sweep.held_out.train_images == record.data.train_images == 48
    assert (sweep.held_out.share, sweep.held_out.seed) == (0.5, 0)
    assert not record.comparable
    said = "swept: base_lr over 1e-05, 0.0001, 0.001: chosen by top1 on 20 held-out training images"
    assert any(each.startswith(said) for each in record.deviations)
    (table,) = comparison_table([record], published())
    assert any(note.text == "of a sweep: base_lr 0.0001." for note in table.notes)


def test_seeds_that_chose_otherwise_are_one_row(swept):
    """The procedure is the same; what it came to is told."""
    record = parse_record((swept / "swept" / "record.json").read_bytes())
    sweep = record.sweep.model_copy(update={"chosen": {"base_lr": 1e-3}})
    recipe = record.recipe | {"base_lr": 1e-3}
    other = {"sweep": sweep, "recipe": recipe, "recipe_hash": "0" * 12, "seed": 1}
    both = [record, record.model_copy(update={"name": "other", **other})]
    (row,) = configurations(both)
    assert len(row.records) == 2
    (table,) = comparison_table(both, published())
    told = "of a sweep with each seed: base_lr 0.0001 (seed 0); base_lr 0.001 (seed 1)."
    assert any(note.text == told for note in table.notes)
    wider = sweep.model_copy(update={"grid": {"base_lr": [1e-4, 1e-3]}})
    assert len(configurations([record, both[1].model_copy(update={"sweep": wider})])) == 2


def test_candidates_are_no_results(swept):
    records, skipped = read_records(swept)
    assert [record.name for record in records] == ["swept"]
    assert not skipped
    assert len(candidates(swept / "swept")) == 3
    for name in candidates(swept / "swept"):
        folder = swept / "swept" / "candidates" / name
        record = parse_record((folder / "record.json").read_bytes())
        assert "not on the test set" in record.deviations[-1]
        assert not record.data.standard
        assert not list(folder.glob("state*/*"))
        assert not list(folder.glob("*.safetensors"))


def test_the_winner_is_trained_on_all_images_as_if_asked_for(swept, world):
    record = parse_record((swept / "swept" / "record.json").read_bytes())
    plain = run(world, swept, name="plain", data=swept / "imagenet1k", **record.sweep.chosen)
    assert_same_bits(swept / "swept", swept / "plain", "model.safetensors")
    assert plain.metrics == record.metrics
    assert plain.sweep is None


def test_done_again_nothing_is_computed(swept, world, monkeypatch, capsys):
    monkeypatch.setattr(sys.modules["mae_bench.transfer"], "fit", None)
    given = {"data": swept / "imagenet1k", "sweep_holdout": 0.5}
    run(world, swept, sweep={"base_lr": RATES}, **given)
    said = capsys.readouterr().out
    assert "chosen before" in said
    assert "training base_lr" not in said
    with pytest.raises(RunError) as caught:
        run(world, swept, sweep={"base_lr": RATES[:2]}, **given)
    said = "holds another sweep (base_lr [1e-05, 0.0001, 0.001] there, [1e-05, 0.0001] here); "
    assert said in str(caught.value)
    given["sweep_holdout"] = 0.25
    with pytest.raises(RunError, match=r"holds another sweep \(share 0.5 there, 0.25 here; "):
        run(world, swept, sweep={"base_lr": RATES}, **given)
    del given["sweep_holdout"]
    with pytest.raises(RunError, match=r"different run \(.*a sweep there, none here\); "):
        run(world, swept, base_lr=RATES[1], **given)


def test_a_candidate_that_cannot_begin_is_refused_before_any_is_trained(world, tmp_path):
    with pytest.raises(RunError, match="candidate image_size 33: image size 33 is not divisible"):
        run(world, tmp_path, sweep={"image_size": [32, 33]})
    assert not (tmp_path / "swept" / "candidates").exists()


def test_a_winner_that_diverges_on_all_images_says_the_way_on(world, tmp_path, monkeypatch):
    module = sys.modules["mae_bench.transfer"]
    fit, sizes = module.fit, []

    def fit_but_last(task, *given):
        sizes.append(len(task.train_data))
        if sizes[-1] > sizes[0]:
            raise Diverged("loss is not finite at step 1; no state was saved; lower --base-lr")
        return fit(task, *given)

    monkeypatch.setattr(module, "fit", fit_but_last)
    with pytest.raises(Diverged) as caught:
        run(world, tmp_path, sweep={"base_lr": RATES[:2]})
    assert "no state was saved; the sweep chose base_lr" in str(caught.value)
    assert "lower --base-lr" not in str(caught.value)


def test_killed_and_done_again_it_is_the_same(swept, tmp_path, fork):
    """Killed in the second candidate; the first is not trained again."""
    argv = ["transfer", *flags(protocol="scratch", data=swept / "imagenet1k", out=tmp_path)]
    argv += flags(name="swept", workers=0, device="cpu", save_minutes=0, **SHORT)
    argv += ["--sweep", "base_lr=1e-5,1e-4,1e-3", "--sweep-holdout", "0.5"]
    process = fork(argv)
    second = tmp_path / "swept" / "candidates" / "base_lr-0.0001"
    wait_for(lambda: steps_logged(second) >= 2, "the second candidate")
    process.kill(9)
    process.exit_code()
    first = tmp_path / "swept" / "candidates" / "base_lr-1e-05" / "record.json"
    before = first.stat().st_mtime_ns
    assert call(argv) == 0
    assert first.stat().st_mtime_ns == before
    assert_same_bits(swept / "swept", tmp_path / "swept", "model.safetensors")
    records = [json.loads((out / "swept" / "record.json").read_text()) for out in (swept, tmp_path)]
    for record in records:
        for each in record["sweep"]["tried"]:
            del each["seconds"]
    assert records[0]["sweep"] == records[1]["sweep"]


@pytest.mark.slow
def test_two_processes_choose_and_train_as_one(swept, tmp_path):
    """Sharded or not; also where one candidate diverges, and when asked again."""
    common = flags(protocol="scratch", data=swept / "imagenet1k", out=tmp_path, workers=0, **SHORT)
    common = ["transfer", *common, "--device", "cpu", "--sweep-holdout", "0.5", "--sweep"]
    rates = "base_lr=1e-5,1e-4,1e-3"
    commands = [
        [*common, rates, "--name", "plain"],
        [*common, rates, "--name", "sharded", "--shard"],
        [*common, "base_lr=1e30,1e-4", "--clip-grad", "None", "--name", "diverged"],
        [*common, rates, "--name", "plain"],
    ]
    pair = in_two_processes(commands, tmp_path / "said")
    assert pair.codes == [[0, 0, 0, 0]] * 2, pair.said
    one = parse_record((swept / "swept" / "record.json").read_bytes())
    for name in ("plain", "sharded"):
        assert_same_run(tmp_path / name, swept / "swept", "model.safetensors")
        found = parse_record((tmp_path / name / "record.json").read_bytes())
        assert found.metrics == one.metrics
        assert found.sweep.chosen == one.sweep.chosen
        assert [x.score for x in found.sweep.tried] == [x.score for x in one.sweep.tried]
        assert found.environment.sharded == (name == "sharded")
    failed = parse_record((tmp_path / "diverged" / "record.json").read_bytes()).sweep.tried[0]
    assert failed.score is None
    assert "plain is finished" in pair.said[0]


def test_a_candidate_that_diverges_is_named(world, tmp_path, capsys):
    record = run(world, tmp_path, sweep={"base_lr": [1e30, 1e-3]}, clip_grad=None)
    failed, fine = record.sweep.tried
    assert failed.score is None
    assert "not finite" in failed.failed
    assert fine.score is not None
    assert record.recipe["base_lr"] == 1e-3
    assert "base_lr 1e+30: failed" in capsys.readouterr().out
    with pytest.raises(RunError, match="all 2 candidates of the sweep failed"):
        run(world, tmp_path, name="none", sweep={"base_lr": [1e30, 1e29]}, clip_grad=None)


@pytest.mark.parametrize(
    ("protocol", "sweep"),
    [
        ("knn", "headline_neighbours=10,20"),
        ("logistic", "l2=0.1,0.001"),
        ("knn", "temperature=0.07,0.5"),
    ],
)
def test_probes_are_swept_too(world, tmp_path, protocol, sweep):
    more = ["--neighbours", "10", "20"] if protocol == "knn" else []
    argv = words(world, tmp_path, "--init", "scratch", *more, "--sweep", sweep, protocol=protocol)
    assert call(argv) == 0
    record = parse_record((tmp_path / "swept" / "record.json").read_bytes())
    assert len(record.sweep.tried) == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["base_lr=1e-4"], "1 candidates; expected two"),
        (["base_lr"], "expected FIELD=VALUE,VALUE"),
        (["base_lr=1e-4,"], "expected FIELD=VALUE,VALUE"),
        (["base_lr=1e-4,1e-3", "--sweep"], "expected FIELD=VALUE,VALUE"),
        (["bas_lr=1e-4,1e-3"], "did you mean base_lr"),
        (["base_lr=1e-4,-1"], "base_lr -1: recipe field base_lr is"),
        (["base_lr=1e-4,0.0001"], "lists a value twice"),
        (["base_lr=1e-4,1e-3", "base_lr=1,2"], "given twice"),
        (["device_batch=4,8"], "says how a run is computed"),
        (["betas=0.9,0.95"], "each of its values is several numbers"),
        (["epochs=1,x"], "epochs x: recipe field epochs is 'x'"),
        (["base_lr=1e-4,1e-3", "--base-lr", "1"], "contradict each other"),
        (["base_lr=1e-4,1e-3", "--sweep-holdout", "1"], "sweep_holdout is 1.0; expected a share"),
        ([], "--sweep-holdout: nothing is swept"),
    ],
)
def test_what_cannot_be_swept_is_one_line_before_any_work(world, tmp_path, capsys, given, said):
    sweep = ["--sweep", *given] if given else ["--sweep-holdout", "0.2"]
    assert call(words(world, tmp_path, *sweep)) == 2
    complaint = capsys.readouterr().err
    assert said in complaint
    assert complaint.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_both_ways_to_give_several_fields_make_a_grid():
    words = ["base-lr=1e-4,1e-3", "epochs=1,2"]
    for groups in ([words], [words[:1], words[1:]]):
        assert read_sweep(groups) == {"base_lr": [1e-4, 1e-3], "epochs": [1, 2]}
    base = recipe("imagenet1k", "vit_mini", "finetune")
    grid = read_grid({"base_lr": [1e-4, 1e-3], "weight_decay": [0.1, 0.2]}, base, {"epochs": 9})
    assert [each.values for each in grid.candidates] == [
        {"base_lr": lr, "weight_decay": decay} for lr in (1e-4, 1e-3) for decay in (0.1, 0.2)
    ]
    assert {each.recipe.epochs for each in grid.candidates} == {9}
    assert len({each.name for each in grid.candidates}) == 4


def test_ties_and_ends_are_said():
    base = recipe("imagenet1k", "vit_mini", "finetune")
    grid = read_grid({"base_lr": [1e-4, 1e-3, 1e-2]}, base, {})
    inner = choose(grid, [1.0, 2.0, 1.0])
    assert not inner.notes
    tie = choose(grid, [1.0, 2.0, 2.0])
    assert tie.candidate.values == {"base_lr": 1e-3}
    assert "tie between base_lr 0.001; base_lr 0.01" in tie.notes[0]
    end = choose(grid, [1.0, None, 2.0])
    assert "is an end of its list" in end.notes[0]
    assert choose(grid, [1.0, 2.0, 3.0], "lower").candidate.values == {"base_lr": 1e-4}
    bound = read_grid({"drop_path": [0.0, 0.1]}, base, {})
    assert not choose(bound, [2.0, 1.0]).notes  # nothing lies beyond


def test_a_suite_knows_its_sweeps(world, tmp_path):
    given = {"tasks": ["imagenet1k"], "init": ["scratch"], "data_root": str(world)}
    given |= {"overrides": SHORT, "sweep": {"base_lr": RATES[:2]}, "sweep_holdout": 0.5}
    (run,) = expand(chosen_spec(None, **given)[0]).runs
    assert There(tmp_path).look(run) is None
    assert call(run.words(tmp_path, {}, ALONE)) == 0
    found = There(tmp_path).look(run)
    assert found is not None
    assert found.sweep.chosen == {"base_lr": RATES[1]}
    for other in ({"base_lr": RATES}, {"base_lr": [RATES[1], 1e-2]}):
        (another,) = expand(chosen_spec(None, **given | {"sweep": other})[0]).runs
        assert There(tmp_path).look(another) is None
    (plain,) = expand(chosen_spec(None, **given | {"sweep": None, "sweep_holdout": None})[0]).runs
    assert There(tmp_path).look(plain) is None
