"""One call of decoding, step by step as it really ran: recorded, drawn in a terminal or as one page."""
