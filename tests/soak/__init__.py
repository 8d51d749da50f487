"""Long runs that show what the service survives: `python -m tests.soak`, or `make endure` for all of them.

Each is a module with `NAME`, and `run(extent, folder, say)` that gives its figures; a test runs every one of them in
small. The large ones take from minutes to half an hour, and write docs/measured/reliability.md.
"""
