"""Scripts that train the networks whose weights this repository carries; run by hand, never by the server."""
