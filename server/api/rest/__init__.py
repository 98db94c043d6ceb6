"""What HTTP without gRPC asks: the same methods, in the words of the protocols that the web has for them."""
