"""What the topics stand on: the runner, processes, the gateway, a backend of our own and wrappers of clients."""
