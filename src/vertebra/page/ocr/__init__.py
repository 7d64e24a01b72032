"""OCR engines behind one call: `read(image) -> Page`."""
