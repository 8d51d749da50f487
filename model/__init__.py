"""What an embedding is: preprocessing, network, training, export and the runtimes that serve it."""
