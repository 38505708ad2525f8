"""The publisher and the node agent of a fleet, over NATS JetStream."""
