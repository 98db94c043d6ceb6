"""Which measure tells what a network's answer rests on: published protocols, side by side, through a server."""
