"""The queue between gateway and agent: durable, at-least-once, in order within a conversation."""
