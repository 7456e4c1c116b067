"""Simulated scans: beams, samples, trajectories, propagation and the detector, put together by `simulate`."""
