"""Conversations: taking a customer's message in, giving the agent its turn, keeping the reply."""
