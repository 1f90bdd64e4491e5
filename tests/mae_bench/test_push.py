"""`mae-bench push`, against a server of our own that stands for Hugging Face's."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import pytest
import yaml

from mae_bench.cli import call
from results.store import read_record


class Hub(BaseHTTPRequestHandler):
    """What creating a repository and committing files to it ask for."""

    files: dict[str, bytes] = {}  # noqa: RUF012
    made: list[dict] = []  # noqa: RUF012
    refused = False

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.refused:
            self.answer({"error": "Invalid username or password."}, 401)
        elif self.path == "/api/repos/create":
            self.made.append(json.loads(body))
            self.answer({"url": "https://huggingface.co/me/model"})
        elif self.path.endswith("/preupload/main"):
            wanted = json.loads(body)["files"]
            how = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in wanted
            ]
            self.answer({"files": how})
        elif self.path.partition("?")[0].endswith("/commit/main"):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    self.files[value["path"]] = base64.b64decode(value["content"])
            address = "https://huggingface.co/me/model/commit/1"
            self.answer({"commitUrl": address, "commitOid": "1", "success": True})
        else:
            self.answer({"errors": [], "warnings": []})

    def do_GET(self) -> None:
        self.answer({"id": "me/model", "sha": "0", "siblings": []})

    def answer(self, content: dict, code: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    Hub.files, Hub.made, Hub.refused = {}, [], False
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_TOKEN", "hf_made_up")
    real = huggingface_hub.HfApi

    def local(**how: object) -> huggingface_hub.HfApi:
        return real(endpoint=address, token="hf_made_up", **how)  # type: ignore[arg-type]

    monkeypatch.setattr(huggingface_hub, "HfApi", local)
    yield Hub
    server.shutdown()
    server.server_close()


def test_model_card_and_record_arrive(classifier, hub, capsys) -> None:
    assert call(["push", str(classifier), "me/model", "--private"]) == 0
    assert "pushed to http://127.0.0.1" in capsys.readouterr().out
    assert hub.made[0]["name"] == "model"
    assert hub.made[0].get("private") or hub.made[0].get("visibility") == "private"
    assert {"README.md", "config.json", "model.safetensors", "record.json", "classes.txt"} == set(
        hub.files
    )
    record = read_record(classifier / "record.json")
    text = hub.files["README.md"].decode()
    _, head, body = text.split("---\n", 2)
    facts = yaml.safe_load(head)
    assert facts["library_name"] == "timm"
    scores = facts["model-index"][0]["results"][0]["metrics"]
    assert {each["name"]: each["value"] for each in scores} == record.metrics
    assert f"| top1 | {record.metrics['top1']:.2f} |" in body
    assert all(str(each) in body for each in record.deviations)
    assert record.environment.command in body


def test_a_refused_token_is_one_line(classifier, hub, capsys) -> None:
    hub.refused = True
    assert call(["push", str(classifier), "me/model"]) == 2
    error = capsys.readouterr().err
    assert "me/model: cannot be written" in error
    assert "HF_TOKEN" in error
    assert "Traceback" not in error
    assert not hub.files


def test_a_hub_out_of_reach_is_one_line(classifier, monkeypatch, capsys) -> None:
    real = huggingface_hub.HfApi
    closed = {"endpoint": "http://127.0.0.1:9", "token": "hf_made_up"}
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda **how: real(**how, **closed))
    assert call(["push", str(classifier), "me/model"]) == 2
    error = capsys.readouterr().err
    assert "me/model: cannot be written" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [(["RUN", "a/b/c"], "a/b/c: cannot be written"), (["nowhere", "me/model"], "no finished run")],
)
def test_bad_input_is_one_line(words, said, classifier, hub, capsys) -> None:
    assert call(["push", *(str(classifier) if w == "RUN" else w for w in words)]) == 2
    assert said in capsys.readouterr().err.replace("\n", " ")
    assert not hub.files
