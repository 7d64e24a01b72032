"""Masked language modelling: whole-word masks over a table, and encoder models that train on them and fill them."""
