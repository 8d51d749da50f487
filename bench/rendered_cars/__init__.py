"""Renders photos of invented cars: a benchmark of the shape of the original project's private one."""
