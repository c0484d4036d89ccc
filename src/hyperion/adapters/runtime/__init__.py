"""What runs replicas on a node."""
