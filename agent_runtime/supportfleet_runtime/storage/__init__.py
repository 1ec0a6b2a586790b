"""What outlives the process: conversations, messages and tasks, in SQLite or PostgreSQL."""
