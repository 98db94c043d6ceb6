"""The models folder: which versions there are, which are served, how they are loaded and freed."""
