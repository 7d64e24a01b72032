"""Receipts and forms drawn from a seed: lines with boxes, what they say, and pictures with noise, slant and worn ink."""
