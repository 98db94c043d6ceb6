"""The other transport: Envoy carries HTTP/2, and calls this process's Python by ASGI (pyvoy)."""
