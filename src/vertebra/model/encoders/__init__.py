"""What turns raw items (images, boxes, vectors) into embeddings, one file a kind."""
