"""Typed settings: TOML < RELAY_<SECTION>_<KEY> < flags, with human units and clear errors."""
