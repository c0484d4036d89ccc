"""Everything outside, each behind a Protocol of ports.py."""
