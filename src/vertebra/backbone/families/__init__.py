"""What differs between families, as tables; the three historical classes are thin and add nothing of their own."""
