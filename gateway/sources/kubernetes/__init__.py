"""What the API server says -> a configuration: a store of objects, and `translate`, a pure function of it."""
