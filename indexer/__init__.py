"""What a gallery is: items, index versions, exact search and the benchmark."""
