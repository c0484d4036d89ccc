"""Workloads that others have recorded, row by row, as jobs of ours. Files are read elsewhere."""
