"""Figures against floors and peers: `python -m benchmarks`. What they mean is in docs/performance.md."""
