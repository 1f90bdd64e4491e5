"""Nothing of ours needs a module, a signal or a constant at import that other systems lack."""

import subprocess
import sys
from pathlib import Path

from mae_bench import provenance

ROOT = Path(__file__).parent.parent
CODE = """
import importlib, os, pkgutil, signal, sys
PACKAGES = ("mae_bench", "backbones", "tasks", "results")

def everything():
    names = []
    for package in PACKAGES:
        found = importlib.import_module(package)
        for each in pkgutil.walk_packages(found.__path__, package + "."):
            if "detectron2" not in each.name and not each.name.endswith("__main__"):
                importlib.import_module(each.name)
                names.append(each.name)
    return names

before = everything()  # with all that others need
import psutil
for name in [n for n in sys.modules if n.partition(".")[0] in PACKAGES]:
    del sys.modules[name]
for name in ("resource", "fcntl", "pwd", "grp", "termios", "readline", "syslog"):
    sys.modules[name] = None
for home, names in ((signal, "SIGHUP SIGALRM SIGCHLD SIGKILL SIGUSR1 setitimer"),
                    (os, "O_NONBLOCK O_CLOEXEC getuid killpg setsid sched_getaffinity fork")):
    for name in names.split():
        if hasattr(home, name):
            delattr(home, name)
assert everything() == before
from backbones.files import read_regular
from mae_bench.provenance import num_cores, resident_peak
assert read_regular(__import__("backbones").__file__)
assert num_cores() >= 1 and resident_peak() > 2**20
print(len(before))
"""


def test_everything_is_imported_without_what_windows_and_macos_lack() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) > 100


def test_the_peak_is_the_systems_own() -> None:
    import resource

    told = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert abs(provenance.resident_peak() - told) < 2**24
