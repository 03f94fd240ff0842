"""Benchmarks: what the runtime costs, each figure beside a reference in the same run.

    python -m tests.bench [NAME…]

Machines are shared and noisy, so nothing here is a test: figures are medians with their range, what is compared runs
in turn, and a ratio is the median over such pairs. The exit code says whether everything could be measured, not
whether every bar was met.
"""
