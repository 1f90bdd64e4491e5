import subprocess
import sys

INTERRUPTED = """
import sys
from importlib.abc import MetaPathFinder

class CtrlC(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "tyro":
            raise KeyboardInterrupt

sys.meta_path.insert(0, CtrlC())
from mae_bench.__main__ import main
main()
"""


def test_ctrl_c_during_the_first_imports_is_one_line() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "mae-bench: stopped\n")


def test_the_package_runs_as_the_command_does() -> None:
    argv = [sys.executable, "-m", "mae_bench", "--version"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("mae-bench ")
