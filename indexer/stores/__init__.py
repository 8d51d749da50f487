"""Vector stores: where the rows of a gallery live and are searched."""
