"""What is measured: sets that carry a known answer, and timings."""
