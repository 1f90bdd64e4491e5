from dataclasses import astuple

import pytest

from results.protocol import ProtocolId
from results.published import HEADLINES


@pytest.mark.parametrize(
    ("text", "parts", "asked"),
    [
        ("imagenet1k/finetune@1", ("imagenet1k", "finetune", "1", None), "finetune"),
        ("imagenet1k/partial-2@1", ("imagenet1k", "partial", "1", "2"), "partial:2"),
        ("imagenet1k/partial-0.5@12", ("imagenet1k", "partial", "12", "0.5"), "partial:0.5"),
        ("inat2018/finetune-448@1", ("inat2018", "finetune-448", "1", None), "finetune-448"),
        ("pretrain/mae@1", ("pretrain", "mae", "1", None), "mae"),
        # What a damaged run.json may say.
        ("", ("", "", "", None), ""),
        ("partial-2", ("partial-2", "", "", None), ""),
    ],
)
def test_parts(text: str, parts: tuple, asked: str) -> None:
    found = ProtocolId.read(text)
    assert astuple(found) == parts
    assert found.asked == asked


@pytest.mark.parametrize("text", [*HEADLINES, "imagenet1k/partial-K@2", "a/b-2@3"])
def test_written_again(text: str) -> None:
    assert str(ProtocolId.read(text)) == text


def test_family() -> None:
    assert str(ProtocolId.read("imagenet1k/partial-12@2").family) == "imagenet1k/partial-K@2"
    assert str(ProtocolId.read("imagenet1k/linear@1").family) == "imagenet1k/linear@1"
