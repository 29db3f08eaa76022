"""What tests share: real servers as subprocesses, and the whole system at the press of a key."""
