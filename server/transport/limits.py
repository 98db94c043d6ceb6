"""Bounds on connections that no flag sets, whatever carries calls."""

MAX_STREAMS = 1024  # of one connection; what a balancer in front needs
ANSWER_SECONDS = 20  # for a client that is asked whether it is there
HANDSHAKE_SECONDS = 20  # for a greeting, TLS, and a call's headers; gRPC itself gives two minutes
