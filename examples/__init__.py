"""Programs that show regard at work."""
