"""One run, from a request to its results: the supervisor, the worker that it starts, and the session inside."""
