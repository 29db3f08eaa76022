"""What relay says about itself: the log."""
