"""`python -m benchmarks NAME [--n N] [--repeats R]`, or `--list`."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys

import benchmarks


def main() -> int:
    names = sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name not in ("__main__", "harness"))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Run ours and the peer on the same work; the last line is JSON.")
    parser.add_argument("name", nargs="?", choices=names, help="what to measure")
    parser.add_argument("--n", type=int, default=None, help="size of the work")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--depth", type=int, default=None, help="requests: messages that a connection has under way")
    parser.add_argument("--gateways", type=int, default=None, help="requests: gateway processes on the port")
    parser.add_argument("--part", default=None, help="crowd: one part of it alone")
    parser.add_argument("--list", action="store_true", help="list the names")
    arguments = parser.parse_args()
    if arguments.list or arguments.name is None:
        for name in names:
            doc = (importlib.import_module(f"benchmarks.{name}").__doc__ or "").strip().splitlines()
            print(f"{name:12} {doc[0] if doc else ''}")
        return 0
    module = importlib.import_module(f"benchmarks.{arguments.name}")
    keywords = {"repeats": arguments.repeats} | ({} if arguments.n is None else {"n": arguments.n})
    more = {name: value for name in ("depth", "gateways", "part") if (value := getattr(arguments, name)) is not None}
    module.run(**keywords | more)
    return 0


if __name__ == "__main__":
    sys.exit(main())
