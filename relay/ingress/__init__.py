"""The doors: where mail comes in, and the one way from there into the store (`submit`)."""
