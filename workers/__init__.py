"""Celery, as thin as it gets: the app, three tasks that hand over, and the engine's bootstep."""
