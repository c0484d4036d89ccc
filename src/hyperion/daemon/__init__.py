"""The processes: thin loops that drive the machines and decide nothing."""
