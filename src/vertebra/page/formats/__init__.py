"""Formats of pages, one file each; `table` lists them. A file has `read(source) -> pages` and `write(pages) -> text`."""
