"""The two protocols: a message is decoded to a request, a response encoded to a message."""
