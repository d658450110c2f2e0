"""Where a search stands, shown while it runs: on its own terminal, or elsewhere."""
