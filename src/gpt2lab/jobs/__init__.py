"""Work in numbered parts that is interrupted and goes on: many prompts into one file, on this machine or a cluster."""
