"""What parallel decoding fills: its columns, and encoder models that fill masks."""
