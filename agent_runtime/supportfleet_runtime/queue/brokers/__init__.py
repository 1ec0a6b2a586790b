"""The kinds of brokers. Each module is imported only where its kind is configured."""
