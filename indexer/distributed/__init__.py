"""Photos beyond this machine: those of object storage and shards, embedded by a cluster."""
