"""Where a machine's entities are kept: SQLite, or memory."""
