"""Parameter groups, optimisers and the schedule."""

from typing import Any

import torch
from timm.optim import Lars as TimmLars
from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler, PolyLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch.optim import AdamW, Optimizer

from tasks.recipe import TrainingRecipe
from tasks.task import Task


def parameter_groups(task: Task, recipe: TrainingRecipe) -> list[dict]:
    """Trained parameters by layer and decay, bottom first.

    `task.is_decayed` says what decays; layer i learns at layer_decay ** (num_layers - i) of the
    rate, which the scheduler applies to the whole schedule, its floor included. Source:
    facebookresearch/mae, util/lr_decay.py, lr_sched.py.
    """
    groups: dict[tuple[int, bool], dict] = {}
    for name, parameter in task.named_parameters():
        if not parameter.requires_grad:
            continue
        decayed = task.is_decayed(name, parameter)
        layer = task.layer_index(name)
        group = groups.setdefault(
            (layer if recipe.layer_decay < 1 else 0, decayed),
            {
                "params": [],
                "decayed": decayed,
                "weight_decay": recipe.weight_decay if decayed else 0.0,
                "lr_scale": recipe.layer_decay ** (task.num_layers - layer),
            },
        )
        group["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]


def build_optimizer(task: Task, recipe: TrainingRecipe) -> Optimizer:
    """The recipe's optimiser over `parameter_groups`.

    LARS follows facebookresearch/mae, util/lars.py: trust 0.001, 1-D tensors exempt. With weight
    decay w, which no recipe of ours gives it, timm's differs: it scales by |p| / (|g| + w |p|),
    and the reference by |p| / |g + w p|.
    """
    groups = parameter_groups(task, recipe)
    if recipe.optimizer == "lars":
        for group in groups:
            group["always_adapt"] = group.pop("decayed")
        return Lars(groups, lr=recipe.lr, momentum=recipe.betas[0], trust_coeff=0.001, eps=0.0)
    for group in groups:
        del group["decayed"]
    return AdamW(groups, lr=recipe.lr, betas=recipe.betas, fused=True)


class Lars(TimmLars):
    """timm's to the bit, without numbers that a device has to wait for.

    Its trust ratio puts 1.0 into a `torch.where`, which copies it to the device each time.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step of what `build_optimizer` asks for: no Nesterov's momentum, no dampening."""
        assert closure is None
        for group in self.param_groups:
            decay, momentum = group["weight_decay"], group["momentum"]
            for p in (each for each in group["params"] if each.grad is not None):
                grad = p.grad
                if decay != 0 or group["always_adapt"]:
                    ours, theirs = p.norm(2.0), grad.norm(2.0)
                    trust = group["trust_coeff"] * ours / (theirs + ours * decay + group["eps"])
                    trust = torch.where((ours > 0) & (theirs > 0), trust, torch.ones_like(trust))
                    grad = grad.add(p, alpha=decay).mul_(trust)
                if momentum != 0:
                    kept = self.state[p].get("momentum_buffer")
                    if kept is None:
                        kept = self.state[p]["momentum_buffer"] = torch.clone(grad)
                    else:
                        kept.mul_(momentum).add_(grad)
                    grad = kept
                p.add_(grad, alpha=-group["lr"])


def build_schedule(
    optimizer: Optimizer, recipe: TrainingRecipe, num_steps: int, epoch_steps: float
) -> Scheduler:
    """Linear warmup, then the recipe's schedule, set before every step.

    Call `step_update(step)` with the number of finished steps. Warmup takes `epoch_steps` steps
    an epoch, from `warmup_start` of the rate on; with 0 the first step has rate 0. Then come a
    half-cosine to `min_lr` (facebookresearch/mae, util/lr_sched.py), a line to it (mmsegmentation's
    LinearLR and PolyLR of power 1, each of which counts one step less), or steps down at the
    milestones, counted from the start of training (detectron2, solver/lr_scheduler.py, and
    fvcore, common/param_scheduler.py).
    """
    warmup: Any = recipe.warmup_epochs * epoch_steps  # timm says int, fractions work
    common: Any = {
        "warmup_t": warmup,
        "warmup_lr_init": recipe.warmup_start * recipe.lr,
        "t_in_epochs": False,
    }
    if recipe.schedule == "step":
        # timm asks whether the step after this one is beyond a milestone.
        ends: Any = [round(share * num_steps) + 1 for share in recipe.milestones]
        return MultiStepLRScheduler(optimizer, ends, 0.1, warmup_prefix=False, **common)
    rest: Any = num_steps - warmup
    if rest <= 1:  # a single step at the peak, or none: any length will do but 1, which timm minds
        rest = 0.5
    common |= {"t_initial": rest, "lr_min": recipe.min_lr, "warmup_prefix": True}
    if recipe.schedule == "poly":
        return PolyLRScheduler(optimizer, power=1.0, **common)
    return CosineLRScheduler(optimizer, **common)


def clip(task: torch.nn.Module, most: float | None) -> None:
    """Scale the gradients down to a global norm of `most`, if one is given."""
    if most is not None:
        torch.nn.utils.clip_grad_norm_(task.parameters(), most)
