"""How training grows with the number of GPUs: time, memory and traffic, as formulas.

N GPUs, one process each, one image batch of fixed size shared among them. What is put in is counted
(operations, weights, activations) or stated (rates of devices, in `Machine`). Bytes are bytes,
rates are a second.
"""

import math
from dataclasses import dataclass

FLOAT = 4
"""bytes of float32: weights, gradients, moments, and what is sent of them"""
MOMENTS = 2
"""of AdamW"""
BUCKET = 25 * 2**20
"""bytes of gradients that are sent at once: torch's default"""
BACKWARD = 2 / 3
"""share of a step in which gradients can be sent"""


@dataclass(frozen=True)
class Network:
    """What one network costs, counted."""

    name: str
    flops: float
    """of an image, forward and backward"""
    forward_flops: float
    """of an image that is scored"""
    trained: int
    """numbers that have gradients and moments"""
    fixed: int
    """numbers that have none, as positions"""
    largest_block: int
    """numbers of the largest transformer block, which FSDP gathers at once"""
    outside: int
    """numbers outside all blocks, which FSDP gathers for the whole of a step"""
    activations: float
    """bytes that one image keeps from the forward to the backward pass"""
    casts: float
    """bytes of weights rounded to bf16, kept for the backward pass"""
    launches: int
    """kernels of a step, about: operators that are called"""


@dataclass(frozen=True)
class Job:
    """A training."""

    images: int
    epochs: int
    batch: int
    """images of a step, over all GPUs"""
    scored: int = 0
    """test images at the end"""


@dataclass(frozen=True)
class Machine:
    """Rates that are assumed or measured elsewhere; see scaling.md for where each is from."""

    flops: float
    utilisation: float
    memory: float
    launch_seconds: float
    """that the host needs for one operator"""
    inside_node: float
    """bytes that a GPU sends, while it receives as many, to others of its node"""
    between_nodes: float
    """the same of a whole node to other nodes: each GPU's adapter carries a ring of its own"""
    hop_seconds: float
    """latency of one message"""
    node: int
    """GPUs"""
    cores: int
    """processor cores for each GPU"""
    images_per_core: float
    """loaded"""
    image_bytes: float
    """of a file"""
    disk: float
    """bytes that a node reads"""
    write: float
    """bytes that one process writes to disk"""
    save_seconds: float
    """between saved states"""


@dataclass(frozen=True)
class Growth:
    """One network, one training, N GPUs."""

    network: Network
    job: Job
    machine: Machine
    gpus: int

    @property
    def per_gpu(self) -> float:
        """Images of a step on one GPU."""
        return self.job.batch / self.gpus

    @property
    def steps(self) -> int:
        return self.job.images // self.job.batch * self.job.epochs

    @property
    def compute_seconds(self) -> float:
        """Of a step, if nothing but arithmetic takes time."""
        rate = self.machine.flops * self.machine.utilisation
        return self.per_gpu * self.network.flops / rate

    @property
    def launch_seconds(self) -> float:
        """Of a step, that the host needs to call all operators: no step is shorter."""
        return self.network.launches * self.machine.launch_seconds

    @property
    def step_seconds(self) -> float:
        """Of a step, with what of the traffic the backward pass does not hide."""
        return max(self.compute_seconds, self.launch_seconds) + self.exposed_seconds

    @property
    def hours(self) -> float:
        return self.steps * self.step_seconds / 3600

    @property
    def ideal_hours(self) -> float:
        """By arithmetic alone."""
        return self.steps * self.compute_seconds / 3600

    @property
    def efficiency(self) -> float:
        """Share of the time that is arithmetic."""
        return self.compute_seconds / self.step_seconds

    # Memory of one GPU.

    @property
    def ddp_bytes(self) -> float:
        """Weights, gradients, their copy in DDP's buckets, moments, casts, activations."""
        trained, fixed = self.network.trained, self.network.fixed
        states = FLOAT * (trained * (1 + 1 + 1 + MOMENTS) + fixed)
        return states + self.network.casts + self.activation_bytes

    @property
    def fsdp_bytes(self) -> float:
        """Weights, gradients and moments in N parts; whole: two blocks, the one at work and the
        next, what is outside of them, and what is rounded to bf16, which the backward pass keeps.
        """
        trained, fixed = self.network.trained, self.network.fixed
        states = FLOAT * (trained * (1 + 1 + MOMENTS) + fixed) / self.gpus
        whole = FLOAT * (2 * self.network.largest_block + self.network.outside)
        return states + whole + self.network.casts + self.activation_bytes

    @property
    def activation_bytes(self) -> float:
        return self.network.activations * self.per_gpu

    # Traffic.

    @property
    def ddp_sent(self) -> float:
        """Bytes that each GPU sends in a step: a ring's all-reduce of all gradients."""
        return 2 * (self.gpus - 1) / self.gpus * FLOAT * self.network.trained

    @property
    def fsdp_sent(self) -> float:
        """Weights gathered for both passes, gradients reduced to where they belong, in float32."""
        return 3 * (self.gpus - 1) / self.gpus * FLOAT * self.network.trained

    @property
    def link(self) -> float:
        """Bytes a second of all rings together, which share what is sent."""
        inside = self.machine.inside_node
        if self.gpus <= self.machine.node:
            return inside
        return min(inside, self.machine.between_nodes)

    @property
    def buckets(self) -> int:
        return math.ceil(FLOAT * self.network.trained / BUCKET)

    @property
    def latency_seconds(self) -> float:
        """Of a step's messages, one after the other: a tree up and down for each bucket."""
        hops = 2 * math.ceil(math.log2(self.gpus)) if self.gpus > 1 else 0
        return self.buckets * hops * self.machine.hop_seconds

    @property
    def reduce_seconds(self) -> float:
        return self.ddp_sent / self.link + self.latency_seconds

    @property
    def exposed_seconds(self) -> float:
        """What of the all-reduce outlasts the backward pass; the last bucket always does."""
        busy = BACKWARD * max(self.compute_seconds, self.launch_seconds)
        last = self.reduce_seconds / max(1, self.buckets)
        return max(last, self.reduce_seconds - busy) if self.gpus > 1 else 0.0

    @property
    def bandwidth_needed(self) -> float:
        """Bytes a second that hide the all-reduce behind the backward pass."""
        return self.ddp_sent / (BACKWARD * self.compute_seconds)

    # What feeds it, and what it writes.

    @property
    def images_per_second(self) -> float:
        return self.job.batch / self.step_seconds

    @property
    def cores_needed(self) -> float:
        """For each GPU, to load its images at the speed of the arithmetic."""
        return self.per_gpu / self.compute_seconds / self.machine.images_per_core

    @property
    def disk_needed(self) -> float:
        """Bytes a second that a node reads at the speed of the arithmetic."""
        gpus = min(self.gpus, self.machine.node)
        return gpus * self.per_gpu / self.compute_seconds * self.machine.image_bytes

    @property
    def state_bytes(self) -> float:
        trained, fixed = self.network.trained, self.network.fixed
        return FLOAT * (trained * (1 + MOMENTS) + fixed)

    @property
    def save_seconds(self) -> float:
        """In which all wait for the first process."""
        return self.state_bytes / self.machine.write

    @property
    def scoring_hours(self) -> float:
        """Of the test images at the end, shared among all."""
        rate = self.machine.flops * self.machine.utilisation * self.gpus
        return self.job.scored * self.network.forward_flops / rate / 3600

    def pressures(self) -> dict[str, float]:
        """Need over supply, by what could break; above 1 it costs time, or does not work."""
        busy = BACKWARD * max(self.compute_seconds, self.launch_seconds)
        machine = self.machine
        saving = self.save_seconds / machine.save_seconds
        return {
            "memory (DDP)": self.ddp_bytes / machine.memory,
            "batch of a GPU too small: calls of operators": self.launch_seconds
            / self.compute_seconds,
            "bandwidth of the all-reduce": self.ddp_sent / self.link / busy,
            "latency of the all-reduce": self.latency_seconds / busy,
            "loading: cores": self.cores_needed / machine.cores,
            "loading: disk": self.disk_needed / machine.disk,
            # A hundredth of the time for states is fine, a tenth would hurt.
            "saved states (1 = 10 % of the time)": 10 * saving,
            "scoring (1 = 10 % of the time)": 10 * self.scoring_hours / self.hours,
        }
