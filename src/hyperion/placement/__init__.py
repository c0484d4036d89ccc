"""The choice: which place suits a job, at what cost, and why not the others."""
