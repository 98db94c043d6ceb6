"""Servers under load in simulated time: the server's own scheduler, on machines that a cost model describes."""
