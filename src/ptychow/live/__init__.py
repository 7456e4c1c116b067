"""Live: frames and positions from a running scan to a growing picture."""
