"""Growth on paper: formulas by hand, and beside what torch holds and what two processes send."""

import math
from dataclasses import replace

import growth_counted as counted
import pytest
from growth import BUCKET, Growth, Job, Machine, Network
from growth_traffic import traffic

NETWORK = Network(
    name="by hand",
    flops=3e9,
    forward_flops=1e9,
    trained=1_000_000,
    fixed=1_000,
    largest_block=100_000,
    outside=50_000,
    activations=2e6,
    casts=2e6,
    launches=100,
)
JOB = Job(images=10_240, epochs=5, batch=1024, scored=500)
MACHINE = Machine(
    flops=1e12,
    utilisation=0.3,
    memory=1e9,
    launch_seconds=1e-5,
    inside_node=1e9,
    between_nodes=1e8,
    hop_seconds=1e-5,
    node=8,
    cores=16,
    images_per_core=10.0,
    image_bytes=1e5,
    disk=1e9,
    write=1e8,
    save_seconds=600,
)


def growth(gpus: int, **changes: object) -> Growth:
    return Growth(NETWORK, JOB, replace(MACHINE, **changes), gpus)  # type: ignore[arg-type]


def test_time_by_hand() -> None:
    """256 images of 3 GFLOP at 0.3 TFLOP/s: 2.56 s; 10 steps of 5 epochs."""
    one = growth(4)
    assert one.per_gpu == 256
    assert one.steps == 50
    assert one.compute_seconds == pytest.approx(2.56)
    assert one.ideal_hours == pytest.approx(50 * 2.56 / 3600)
    assert one.scoring_hours == pytest.approx(500 * 1e9 / (4 * 3e11) / 3600)
    # 6 MB at 1 GB/s and 4 hops of 10 µs, in one bucket, which nothing hides.
    assert one.reduce_seconds == pytest.approx(6e-3 + 4e-5)
    assert one.step_seconds == pytest.approx(2.56 + 6.04e-3)
    assert one.efficiency == pytest.approx(2.56 / 2.56604)


def test_one_gpu_sends_nothing() -> None:
    one = growth(1)
    assert one.ddp_sent == one.fsdp_sent == one.exposed_seconds == one.latency_seconds == 0
    assert one.step_seconds == one.compute_seconds


def test_memory_by_hand() -> None:
    """Five numbers of 4 bytes for each that trains, one for each that does not."""
    one = growth(4)
    activations = 256 * 2e6
    assert one.ddp_bytes == pytest.approx(4 * (5e6 + 1e3) + 2e6 + activations)
    parts = 4 * (4e6 + 1e3) / 4
    whole = 4 * (2 * 1e5 + 5e4) + 2e6
    assert one.fsdp_bytes == pytest.approx(parts + whole + activations)
    assert one.state_bytes == 4 * (3e6 + 1e3)
    assert one.save_seconds == pytest.approx(0.12004)


def test_traffic_by_hand() -> None:
    """A ring sends each byte twice, but for its own part; FSDP three times."""
    two, many = growth(2), growth(512)
    assert two.ddp_sent == 4e6
    assert two.fsdp_sent == 6e6
    assert many.ddp_sent == pytest.approx(8e6 * 511 / 512)
    assert (two.link, many.link) == (1e9, 1e8)
    assert growth(512, between_nodes=1e10).link == 1e9
    assert many.latency_seconds == pytest.approx(18 * 1e-5)
    assert two.bandwidth_needed == pytest.approx(4e6 / (2 / 3 * two.compute_seconds))
    large = Growth(replace(NETWORK, trained=BUCKET), JOB, MACHINE, 8)
    assert large.buckets == 4


def test_the_backward_pass_hides_what_it_can() -> None:
    """At 64 GPUs arithmetic takes 0.16 s, of which 0.107 s hide all buckets but the last."""
    network = replace(NETWORK, trained=BUCKET)  # four buckets

    def at(rate: float) -> Growth:
        machine = replace(MACHINE, inside_node=1e12, between_nodes=rate)
        return Growth(network, JOB, machine, 64)

    hidden = 2 / 3 * at(1e9).compute_seconds
    fast, slow = at(1e10), at(1e8)
    assert fast.exposed_seconds == pytest.approx(fast.reduce_seconds / 4)
    assert slow.exposed_seconds == pytest.approx(slow.reduce_seconds - hidden)


def test_small_batches_wait_for_the_host() -> None:
    """2 images of 512 GPUs: 20 ms of arithmetic; 10,000 operators of 10 µs take 100 ms."""
    network = replace(NETWORK, launches=10_000)
    one = Growth(network, JOB, MACHINE, 512)
    assert one.compute_seconds == pytest.approx(0.02)
    assert one.step_seconds >= one.launch_seconds == pytest.approx(0.1)
    assert one.pressures()["batch of a GPU too small: calls of operators"] == pytest.approx(5)


def test_loading_by_hand() -> None:
    """100 images a second of each GPU: 10 cores of 10; 8 GPUs read 80 MB/s."""
    one = growth(8)
    assert one.per_gpu / one.compute_seconds == pytest.approx(100)
    assert one.cores_needed == pytest.approx(10)
    assert one.disk_needed == pytest.approx(8 * 100 * 1e5)
    assert one.pressures()["loading: cores"] == pytest.approx(10 / 16)
    assert all(value > 0 and math.isfinite(value) for value in one.pressures().values())


SMALL = {"image_size": 64, "decoder_dim": 64, "decoder_depth": 2, "decoder_heads": 2}


def test_counted_memory_is_what_torch_holds() -> None:
    """Activations of another batch than those counted, within 5 %; weights and moments exactly."""
    network, inputs = counted.pretraining("vit_mini", **SMALL)
    found = counted.count("small", network, inputs)
    held = counted.held_bytes(network, inputs(8))
    assert found.casts + 8 * found.activations == pytest.approx(held, rel=0.05)
    assert 4 * (4 * found.trained + found.fixed) == counted.state_bytes(network, inputs(2))


def test_two_processes_send_what_the_formula_says() -> None:
    """DDP reduces four bytes of each number that trains; a ring of two sends them once. And FSDP
    keeps what the formula says of each process."""
    found = traffic({**SMALL, "image_size": 32}, "vit_t")
    assert found.reduced == 4 * found.trained
    assert found.sent is None or found.sent == pytest.approx(4 * found.trained, rel=0.05)
    # Under --shard: half of everything, to the rounding up of the parts.
    assert found.part == pytest.approx(found.whole / 2, rel=0.01)
    # What is rounded to bf16 stays whole: two bytes of each number of a matrix.
    assert found.rounded == found.matrices * 2
