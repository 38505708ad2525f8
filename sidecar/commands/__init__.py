"""The commands for administrators; the services are `authorizer` and `fetcher`."""
