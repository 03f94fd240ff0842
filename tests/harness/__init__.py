"""Shared parts of tests: virtual time, a store and a cluster in memory, and benches for tools and models."""
