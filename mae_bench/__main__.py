"""Where `mae-bench` begins: the command line, imported so that Ctrl-C is heard meanwhile."""

import sys


def main() -> None:
    """Entry point of `mae-bench` and of `python -m mae_bench`."""
    try:
        from mae_bench.cli import main as command_line
    except KeyboardInterrupt:  # nothing has begun yet
        print("mae-bench: stopped", file=sys.stderr)
        raise SystemExit(130) from None
    command_line()


if __name__ == "__main__":
    main()
