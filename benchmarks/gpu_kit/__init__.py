"""The parts of benchmarks/gpu.py. `runner` and `report` import no torch, so that its absence, too,
is only one thing that is missing."""
