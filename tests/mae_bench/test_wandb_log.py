"""--log wandb: Weights & Biases has what the log has, offline too."""

import json
import struct
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import wandb
from small_runs import SMALL, assert_same_bits, log_of
from wandb.proto import wandb_internal_pb2 as messages

from mae_bench.cli import call
from mae_bench.errors import RunError
from mae_bench.execution import Execution
from mae_bench.transfer import transfer

ONLINE = Execution(workers=0, device="cpu", log="wandb", eval_every=1, save_minutes=0)
ALONE = Execution(workers=0, device="cpu", log="wandb")
BLOCK, HEADER = 32768, 7


def run(world, out, name="run", how=ONLINE):
    data = world / "imagenet1k"
    return transfer(protocol="scratch", data=data, out=out, name=name, execution=how, **SMALL)


def records(file):
    """The records of a .wandb file: LevelDB's log format, after a header of seven bytes."""
    content, at, whole = file.read_bytes(), HEADER, b""
    while at + HEADER <= len(content):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        length, kind = struct.unpack("<HB", content[at + 4 : at + HEADER])
        whole += content[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (1, 4):  # a whole one, or the last part of one
            yield messages.Record.FromString(whole)
            whole = b""


def logged(folder):
    """Step -> numbers, ids and projects, of all .wandb files of a run, the oldest first."""
    steps, ids, projects = {}, [], set()
    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for record in records(file):
            if record.WhichOneof("record_type") == "run":
                ids.append(record.run.run_id)
                projects.add(record.run.project)
            if record.WhichOneof("record_type") == "history":
                items = {
                    ".".join(each.nested_key) or each.key: json.loads(each.value_json)
                    for each in record.history.item
                }
                steps.setdefault(items["_step"], {}).update(items)
    return steps, ids, projects


@pytest.fixture
def elsewhere(monkeypatch, tmp_path_factory):
    """Nothing of this machine's wandb is seen, and nothing of what a test before set."""
    place = tmp_path_factory.mktemp("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_SERVICE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "NETRC"):
        monkeypatch.setenv(name, str(place / name))
    monkeypatch.setenv("WANDB_SILENT", "true")
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.fixture
def offline(monkeypatch, elsewhere):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_PROJECT", "mine")


def test_it_has_what_the_log_has_and_goes_on_in_the_same_run(world, tmp_path, offline, monkeypatch):
    plain = run(world, tmp_path, "plain", Execution(workers=0, device="cpu"))
    loop = sys.modules["mae_bench.train"]
    clip, count = loop.clip, []

    def stop(*arguments):
        count.append(1)
        if len(count) == 8:
            raise KeyboardInterrupt
        clip(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "clip", stop)
        with pytest.raises(KeyboardInterrupt):
            run(world, tmp_path)
    record = run(world, tmp_path)
    assert record.metrics == plain.metrics
    assert_same_bits(tmp_path / "plain", tmp_path / "run", "model.safetensors")
    steps, ids, projects = logged(tmp_path / "run")
    assert projects == {"mine"}
    assert len(ids) >= 2
    assert set(ids) == {json.loads((tmp_path / "run" / "wandb.json").read_text())["id"]}
    log = log_of(tmp_path / "run")
    assert [each["step"] for each in log] == sorted(steps)
    for each in log:
        found = steps[each["step"]]
        assert {key: found[key] for key in ("epoch", "loss", "lr")} == {
            key: each[key] for key in ("epoch", "loss", "lr")
        }
    validation = json.loads((tmp_path / "run" / "validation.jsonl").read_text())
    assert steps[validation["step"]]["validation/top1"] == validation["top1"]


def test_a_missing_package_is_one_line(world, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("mae_bench.run.wandb_log.find_spec", lambda name: None)
    words = ["transfer", "--protocol", "scratch", "--data", str(world / "imagenet1k")]
    assert call([*words, "--out", str(tmp_path), "--log", "wandb", "--device", "cpu"]) == 2
    complaint = capsys.readouterr().err
    assert "pip install 'mae-bench[wandb]'" in complaint
    assert complaint.count("\n") == 1
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["transfer", "pretrain", "suite"])
def test_a_missing_key_is_one_line_before_there_is_a_folder(
    world, tmp_path, command, elsewhere, capsys
):
    words = {
        "transfer": ["--protocol", "scratch", "--data", str(world / "imagenet1k")],
        "pretrain": ["--data", str(world / "unlabelled")],
        "suite": ["quickstart"],
    }
    how = ["--out", str(tmp_path / "runs"), "--log", "wandb", "--device", "cpu"]
    assert call([command, *words[command], *how]) == 2
    complaint = capsys.readouterr().err
    assert "`wandb login` first, or set WANDB_MODE=offline" in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "runs").exists()


class Rejecting(BaseHTTPRequestHandler):
    """A server that takes no key."""

    def do_POST(self):
        self.send_response(401)
        self.end_headers()
        self.wfile.write(b'{"errors": [{"message": "user is not logged in", "code": 401}]}')

    def log_message(self, *_):
        pass


def test_a_key_that_is_rejected_leaves_no_folder(world, tmp_path, elsewhere, monkeypatch, capsys):
    with ThreadingHTTPServer(("127.0.0.1", 0), Rejecting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        words = ["pretrain", "--data", str(world / "unlabelled"), "--out", str(tmp_path / "runs")]
        assert call([*words, "--log", "wandb", "--device", "cpu"]) == 2
        server.shutdown()
    complaint = capsys.readouterr().err
    assert "`wandb login` first, or set WANDB_MODE=offline" in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_finished_run_needs_no_key(world, tmp_path, elsewhere):
    """Nothing is logged any more."""
    record = run(world, tmp_path, "run", Execution(workers=0, device="cpu"))
    again = run(world, tmp_path, "run", Execution(workers=0, device="cpu", log="wandb"))
    assert again == record


def test_it_is_refused_where_nothing_is_trained(world, tmp_path):
    with pytest.raises(RunError, match="--log: --protocol knn trains no backbone"):
        transfer(protocol="knn", init="scratch", data=world / "imagenet1k", execution=ALONE)
