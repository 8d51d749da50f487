"""Fuzzing: the decode path and the archive reader guided by coverage (atheris), the API by its document (schemathesis).

`python -m tests.soak.fuzz`, or `make fuzz` for all three; the suite runs each for some seconds.
"""
