"""The server. A request's way: service, (images | text | tensors), scheduler, engine, attention, and back."""
