"""Benchmarks: each prints one line of JSON, figures with their unit in the key, targets and what missed them."""
