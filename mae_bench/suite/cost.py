"""What a run costs: measured on this device by a short probe, or reckoned for another one.

Imports no torch.
"""

from dataclasses import dataclass, replace

from mae_bench.errors import RunError

GIB = 2**30
STATES = 3
"""saved states that lie on disk at once: two that are kept, and one being written"""
OF_ADAM = 4
"""float32 tensors of the size of the weights while AdamW trains: they, their gradients, two
moments"""


@dataclass(frozen=True)
class Probe:
    """What a few steps of a run have shown. Numbers are of one process."""

    parameters: int
    """of backbone, head and, in pre-training, decoder"""
    train_images: int
    test_images: int
    """0: nothing is scored"""
    steps: int
    """optimiser steps of the whole run; 0: it trains nothing by the loop"""
    micro_batches: int
    """of a step"""
    device_batch: int
    flops_per_image: float | None
    """of training, forward and backward; None: it trains nothing, or they could not be counted"""
    prepare_seconds: float
    """until the first step: looking at the data, making the network"""
    micro_batch_seconds: float
    update_seconds: float
    """of the optimiser's part of a step"""
    score_seconds: float
    """of all test images, and for probes of training images too"""
    peak_bytes: int
    """memory of the process on a CPU, of the device on a GPU"""
    activation_bytes: int
    """of it, what one image keeps from the forward to the backward pass"""
    state_bytes: int
    """of a saved state"""
    weights_bytes: int
    """of the weights that are kept at the end"""
    prediction_bytes: int
    """of what is kept about the test images"""
    device: str

    @property
    def step_seconds(self) -> float:
        return self.micro_batches * self.micro_batch_seconds + self.update_seconds

    @property
    def train_seconds(self) -> float:
        return self.steps * self.step_seconds

    @property
    def seconds(self) -> float:
        """Of the whole run, from the reading of the data to the scores."""
        return self.prepare_seconds + self.train_seconds + self.score_seconds

    @property
    def flops_per_step(self) -> float | None:
        if self.flops_per_image is None:
            return None
        return self.flops_per_image * self.device_batch * self.micro_batches

    def on_held_out(self, share: float) -> "Probe":
        """Of a candidate of a sweep: `share` of the training images is scored, the rest trained on.

        A probe of frozen features looks at both parts as it does at both sets.
        """
        images = round(share * self.train_images)
        looked_at = self.test_images if self.steps else self.test_images + self.train_images
        scored = images if self.steps else self.train_images
        return replace(
            self,
            train_images=self.train_images - images,
            test_images=images,
            steps=round((1 - share) * self.steps),
            score_seconds=self.score_seconds * scored / max(1, looked_at),
        )

    @property
    def disk_bytes(self) -> int:
        """The most that a run's folder holds, while it trains or afterwards."""
        after = self.weights_bytes + self.prediction_bytes
        return STATES * self.state_bytes * bool(self.steps) + after


@dataclass(frozen=True)
class Device:
    """A device that is not at hand, by its maker's numbers."""

    title: str
    tflops: dict[str, float]
    """precision -> most floating-point operations a second, in 10^12, without sparsity"""
    gib: float
    """of memory"""


DEVICES = {
    "v100-32gb": Device("NVIDIA V100 SXM2 32 GB", {"bf16": 15.7, "fp32": 15.7}, 32),
    "a100-40gb": Device("NVIDIA A100 SXM 40 GB", {"bf16": 312, "fp32": 19.5}, 40),
    "a100-80gb": Device("NVIDIA A100 SXM 80 GB", {"bf16": 312, "fp32": 19.5}, 80),
    "h100-80gb": Device("NVIDIA H100 SXM 80 GB", {"bf16": 989.4, "fp32": 66.9}, 80),
    "h200-141gb": Device("NVIDIA H200 SXM 141 GB", {"bf16": 989.4, "fp32": 66.9}, 141),
    "l40s-48gb": Device("NVIDIA L40S 48 GB", {"bf16": 362.1, "fp32": 91.6}, 48),
}
"""NVIDIA's data sheets of these products (V100, A100, H100, H200, L40S): bf16 by tensor cores,
dense; float32 without them. V100 has no bf16, which runs there as fast as float32 at best."""
UTILISATION = 0.3
"""share of a device's most operations that a training reaches; assumed, ViTs are reported at 0.2 to
0.5"""
FORWARD = 1 / 3
"""share of a training image's operations that its forward pass is"""


@dataclass(frozen=True)
class Cost:
    """What a run costs on a device."""

    seconds: float
    bytes: int
    """of memory"""
    device_batch: int
    """largest that fits, of those that divide the recipe's batch and are not above its own"""
    accumulation: int
    """micro-batches of a step with it"""
    room: float
    """bytes of memory that the device has"""

    @property
    def fits(self) -> bool:
        return self.bytes <= self.room


def on_this_device(probe: Probe, room: float) -> Cost:
    """As probed."""
    fixed = probe.peak_bytes - probe.activation_bytes * probe.device_batch
    return cost(probe, probe.seconds, fixed, probe.activation_bytes, room)


def on_device(probe: Probe, device: Device, precision: str, utilisation: float) -> Cost:
    """Reckoned from counted operations; reading and data are taken to keep up.

    Raises `RunError` where there is no count.
    """
    if probe.flops_per_image is None:
        raise RunError("its operations could not be counted; only a probe on the device tells")
    rate = device.tflops[precision] * 1e12 * utilisation
    trained = probe.steps * probe.micro_batches * probe.device_batch
    scored = probe.test_images * FORWARD
    seconds = (trained + scored) * probe.flops_per_image / rate
    fixed = 4 * OF_ADAM * probe.parameters
    return cost(probe, seconds, fixed, probe.activation_bytes, device.gib * GIB)


def cost(probe: Probe, seconds: float, fixed: float, each: float, room: float) -> Cost:
    """With the largest device batch that fits."""
    batch = probe.device_batch * max(1, probe.micro_batches)
    fitting = [
        size
        for size in range(probe.device_batch, 0, -1)
        if batch % size == 0 and fixed + each * size <= room
    ]
    size = fitting[0] if fitting else 1
    need = int(fixed + each * (probe.device_batch if fitting[:1] == [probe.device_batch] else size))
    return Cost(seconds, need, size, batch // size, room)
