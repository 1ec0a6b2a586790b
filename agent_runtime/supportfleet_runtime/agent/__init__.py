"""The agent: what it understands, what its rules answer, and what it asks a language model."""
