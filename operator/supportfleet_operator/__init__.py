"""The operator: reconciles SupportAgent resources into the objects an agent needs."""
