"""What the exporter writes and the server reads: contract, verification, preprocessing. No torch, gRPC or engine."""
