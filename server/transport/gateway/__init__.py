"""HTTP beside gRPC: uvicorn carries it, and each request becomes a call of one of gRPC's methods in this process."""
