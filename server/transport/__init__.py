"""gRPC and HTTP ports: who calls, bytes in, bytes out."""
