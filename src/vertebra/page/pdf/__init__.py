"""PDF files through pypdfium2: the text layer with its places, whether it is worth anything, and pages as pictures."""
