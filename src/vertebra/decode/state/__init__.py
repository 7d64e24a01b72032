"""What is known between two steps: columns, their cache and masks, and the passes that compute them."""
