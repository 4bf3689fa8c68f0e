"""The rate limits of requests. Driven through engine.Engine; nothing here is for Python alone."""
