"""Benchmarks on the embedded model: `python -m benchmarks NAME`, or all of them with `make bench`.

Each sets levelhead beside the plain way of doing the same thing and writes JSON to runs/bench/.
"""
