"""What runs a network: frames prepared, batches in, complex patches out."""
