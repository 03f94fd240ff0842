"""``make fuzz``: random inputs for each target in turn, until the time is over or something does not hold.

Each round says its seed before it begins, so that also one that never ends, or ends the process, can be repeated.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import sys
import time
import traceback
from collections import Counter

from tests.fuzz import budgets, decoder, documents
from tests.fuzz.target import Target, peak

TARGETS: dict[str, Target] = {
    target.name: target for module in (decoder, documents, budgets) for target in module.TARGETS
}

MEMORY = 4 * 1024**3
"""Bytes of memory after which the process gets no more: a target that asks for it fails, and not the machine."""


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--target", choices=sorted(TARGETS), action="append", help="this one only")
    parser.add_argument("--seed", type=int, help="one round with this seed, and no more")
    parser.add_argument("--examples", type=int, default=200, help="inputs of a round")
    options = parser.parse_args()
    chosen = [TARGETS[name] for name in options.target or TARGETS]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    failed = run(chosen, options.minutes * 60, options.seed, options.examples)
    sys.exit(1 if failed else 0)


def run(chosen: list[Target], seconds: float, seed: int | None, examples: int) -> list[str]:
    """Try ``chosen`` in turn for ``seconds``, or once with ``seed``; the names of those that failed."""
    ends, tried, failed = time.monotonic() + seconds, Counter[str](), list[str]()
    # In CI the same rounds each time: what a search finds anew is not the fault of the change at hand.
    numbers = random.Random(0) if os.environ.get("CI") else random.SystemRandom()
    while chosen:
        for target in list(chosen):
            number = seed if seed is not None else numbers.randrange(10**9)
            print(f"{target.name:<12} seed {number:<10}", end=" ", flush=True)
            if not _round(target, number, examples):
                failed.append(target.name)
                chosen.remove(target)
            tried[target.name] += examples
            if seed is None and time.monotonic() >= ends:
                chosen = []
                break
        if seed is not None:
            break
    print("tried: " + ", ".join(f"{count:,} × {name}" for name, count in sorted(tried.items())), end="; ")
    print(f"peak memory {peak() // 2**20} MiB; " + (f"FAILED: {', '.join(failed)}" if failed else "all of it held"))
    return failed


def _round(target: Target, number: int, examples: int) -> bool:
    """Whether so many inputs of ``target`` hold."""
    began = time.monotonic()
    try:
        target.attempt(number, examples)
    except Exception:  # noqa: BLE001  (whatever it is, it is told, and the other targets go on)
        print("FAILED")
        traceback.print_exc()
        command = f"python -m tests.fuzz --target {target.name} --seed {number} --examples {examples}"
        print(f"to repeat it: .venv/bin/{command}", flush=True)
        return False
    print(f"{time.monotonic() - began:6.1f} s  {peak() // 2**20} MiB", flush=True)
    return True


if __name__ == "__main__":
    main()
