"""What people type: the local cluster, and commands for agents."""
