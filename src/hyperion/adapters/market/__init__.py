"""Where prices, egress, latency and carbon come from."""
