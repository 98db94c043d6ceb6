"""Models in an object store or on a shared disk, fetched once a machine into a cache and verified by their hashes."""
