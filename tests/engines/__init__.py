"""Tests against servers and clusters in processes of their own: `make test-engines`."""
