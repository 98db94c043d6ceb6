"""Another transport: Ray Serve carries HTTP/2, and calls this process's Python by a method of a deployment each."""
