"""The other end: servers that speak the detectors' protocols, on this machine only, with the faults one asks for."""
