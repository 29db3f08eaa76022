"""The vocabulary: values of mail and of the queue, without I/O, clock or settings."""
