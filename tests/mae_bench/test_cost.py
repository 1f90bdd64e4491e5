"""FLOPs against counts by hand, and what else a network costs."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toy import Samples, Toy, toy_recipe

import backbones
from backbones.relative import autocast
from mae_bench.cost import flops_per_image, with_backbone
from mae_bench.execution import Execution
from mae_bench.pretraining.methods import METHODS
from mae_bench.recipes import override, recipe
from mae_bench.setup import Spent
from mae_bench.train import prepare_blocks
from results import parse_record
from tasks.task import Batch


class Attending(Toy):
    """One head of attention over 3 tokens of 4 numbers, with what a count must not change."""

    def __init__(self) -> None:
        super().__init__(toy_recipe(), Tokens())
        self.qkv, self.norm = nn.Linear(4, 12), nn.BatchNorm1d(3)
        self.head = nn.Linear(4, 1)
        self.slow = nn.Parameter(torch.ones(4), requires_grad=False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            self.slow.mul_(0.5).add_(1)  # as a momentum encoder
        q, k, v = self.qkv(self.norm(batch["x"])).chunk(3, dim=-1)
        x = F.dropout(F.scaled_dot_product_attention(q, k, v), 0.5)
        return {"loss": self.head(x).square().mean()}


class Tokens(Samples):
    def __getitems__(self, keys: list[tuple[int, int]]) -> Batch:
        return super().__getitems__(keys) | {"x": torch.ones(len(keys), 3, 4)}


class Looking(Attending):
    def forward(self, batch: Batch) -> dict[str, Tensor]:
        loss = super().forward(batch)["loss"]
        return {"loss": loss if loss.item() > 0 else -loss}


def test_flops_by_hand():
    """qkv 2·3·4·12 = 288, twice attention's 2·3·3·4 = 144, head 2·3·4 = 24, forward; backward the
    double of each, since batch norm before qkv trains too."""
    assert flops_per_image(Attending()) == 3 * (288 + 144 + 24)


def test_counting_changes_nothing():
    task = Attending()
    before = {name: value.clone() for name, value in task.state_dict().items()}
    state = torch.get_rng_state()
    assert flops_per_image(task)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())
    assert all(parameter.grad is None for parameter in task.parameters())
    assert type(task.qkv.weight) is nn.Parameter


def test_a_network_that_looks_at_its_numbers_is_not_counted(capsys):
    assert flops_per_image(Looking()) is None
    assert "FLOPs are not counted for this network" in capsys.readouterr().out


def test_mask_tokens_in_the_encoder_cost_what_their_products_tell(world):
    """12 blocks of width 192 over 197 or 50 tokens, and 8 of width 512 over 197; for ViT-L the
    same sum gives 3.25 times (Table 1c: 3.3)."""

    def block(tokens: int, width: int) -> int:
        return 2 * tokens * 12 * width**2 + 4 * tokens**2 * width

    base = override(recipe("pretrain", "vit_t", "mae"), {"norm_pix": False})
    for tokens, seen in ((True, 197), (False, 50)):
        changed = override(base, {"encoder_mask_tokens": tokens})
        task = METHODS["mae"].build(changed, [world / "unlabelled"], 0)
        forward = 12 * block(seen, 192) + 8 * block(197, 512)
        assert flops_per_image(task) == pytest.approx(3 * forward, rel=0.03)


def test_a_pre_training_keeps_its_flops(pretrained):
    record = parse_record((pretrained / "record.json").read_text())
    assert record.cost.flops_per_image > 1e5


def test_a_backbone_costs_what_its_sizes_tell():
    """ViT-T: by hand 2·196·768·192 for the patches and 12 blocks over 197
    tokens; nothing of it changes."""
    vit = backbones.create("vit_t")
    before = {name: value.clone() for name, value in vit.state_dict().items()}
    spent = with_backbone(Spent(datetime.now(UTC), 1.0), vit, 224)
    patches = 2 * 196 * 768 * 192
    blocks = 12 * (2 * 197 * 12 * 192**2 + 4 * 197**2 * 192)
    assert spent.forward_flops == pytest.approx(patches + blocks, rel=1e-6)
    assert spent.parameters == sum(value.numel() for value in vit.parameters())
    assert 0 < spent.latency_seconds < 30
    assert vit.training
    assert all(torch.equal(value, before[name]) for name, value in vit.state_dict().items())


@pytest.mark.parametrize("name", ["mae", "moco_v3"])
def test_activations_that_are_computed_again_are_counted_once(world, name):
    base, counts = recipe("pretrain", "vit_mini", name), []
    for again in (False, True):
        task = METHODS[name].build(base, [world / "unlabelled"], 0)
        prepare_blocks(task, Execution(checkpoint_activations=again))
        before = [vars(each).get("forward") for each in task.modules()]
        counts.append(flops_per_image(task))
        assert [vars(each).get("forward") for each in task.modules()] == before
        assert any(before) == again
    assert counts[0] == counts[1] > 1e6


def test_supervised_pre_training_is_counted_without_its_mixing(world):
    method, base = METHODS["supervised"], recipe("pretrain", "vit_mini", "supervised")
    task = method.build(base, method.read(world / "imagenet1k"), 0)
    assert flops_per_image(task) > 1e6
    assert task.training


def test_tokenizers_are_counted_without_their_annealing(world):
    base = recipe("pretrain", "vit_mini", "tokenizer")
    task = METHODS["tokenizer"].build(base, [world / "unlabelled"], 0)
    assert flops_per_image(task) > 1e6


def test_tables_of_relative_position_pass_where_there_is_no_autocast():
    assert autocast(torch.ones(2, device="meta")).is_meta


def test_a_process_can_fork_and_train_after_counting():
    """In a process of its own, as autograd's threads would outlive the test."""
    code = (
        "import os, sys, torch\n"
        "from test_cost import Attending, flops_per_image\n"
        "assert flops_per_image(Attending())\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    torch.ones(1, requires_grad=True).sum().backward()\n"
        "    os._exit(0)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    here = Path(__file__).parent
    subprocess.run([sys.executable, "-c", code], cwd=here, check=True, timeout=120)
