"""Bounds on connections that no flag sets, whatever carries calls."""

ANSWER_SECONDS = 20  # for a client that is asked whether it is there
HANDSHAKE_SECONDS = 20  # for a greeting, TLS, and a call's headers; gRPC itself gives two minutes
