"""The arithmetic of an update, below the layers: products, attention, norms and the loss, each with its gradient."""
