"""A page that shows training runs as they go: their files, their curves, and the routes that serve them."""
