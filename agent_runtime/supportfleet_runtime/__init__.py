"""The agent runtime: gateway, durable queue, agent and model in one image."""
