"""What happens to a request, whatever the protocol: preprocess, validate, plan, compute, reduce. Knows no protobuf."""
