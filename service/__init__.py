"""What the world sees: the HTTP server and the command line."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("carsearch")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0+unknown"
