"""Benchmarks against floors and peers: `python -m benchmarks`. docs/performance.md explains the figures."""
