"""Benchmarks of FLEAD, each with its baseline in the same run; `flead bench --help` lists them."""
